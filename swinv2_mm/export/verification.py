"""Verify an exported file against the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .images import resized
from .model import LibraryModel, Part, reference

Outputs = Mapping[str, Tensor]
# Largest difference from PyTorch that rounding of float32 explains: of the score of a detection, of
# its box relative to the image, of the share of pixels whose value is at a threshold.
_TOLERANCES = {'boxes': 1e-3, 'scores': 1e-3, 'masks': 1e-2, 'panoptic': 1e-2}
# Largest difference of other outputs, relative to their largest value.
TOLERANCE = 1e-4
# Least share of all detections that must agree. Rounding decides which of two boxes of one score
# suppresses the other, and on which side of a threshold a score lies.
LEAST_AGREEING = 0.99


@dataclass(frozen=True)
class Agreement:
    """How far a file is from the model.

    Attributes:
        differences: The largest by the name of the output: of logits and maps relative to the
            largest value, of boxes to the image, of masks and panoptic maps the share of pixels;
            of detections, of those that agree. NaN if an output has one, or another shape.
        num_agreeing: Detections that agree in class, score, box and mask.
        num_detections: Detections of the model or of the file, whichever are more.
    """

    differences: Mapping[str, float] = field(default_factory=dict)
    num_agreeing: int = 0
    num_detections: int = 0

    @property
    def is_close(self) -> bool:
        """Whether rounding explains the differences."""
        within = [
            value <= _TOLERANCES.get(name, TOLERANCE) for name, value in self.differences.items()
        ]
        return all(within) and self.num_agreeing >= LEAST_AGREEING * self.num_detections

    def __str__(self) -> str:
        each = ', '.join(f'{name} {value:.2g}' for name, value in self.differences.items())
        found = f'largest differences: {each}'
        if self.num_detections:
            found += f'; {self.num_agreeing} of {self.num_detections} detections agree'
        return found

    def __add__(self, other: Agreement) -> Agreement:
        names = {**self.differences, **other.differences}
        both = [
            (name, (self.differences.get(name, 0.0), other.differences.get(name, 0.0)))
            for name in names
        ]
        return Agreement(
            {name: max(pair, key=_nan_last) for name, pair in both},
            self.num_agreeing + other.num_agreeing,
            self.num_detections + other.num_detections,
        )


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def as_input(image: Tensor) -> Tensor:
    """Turn a BGR image into what an exported model takes: (3, H, W) -> (1, 3, H, W), RGB."""
    return image.flip(0)[None].float()


def agreement(
    model: LibraryModel,
    file: Callable[[Tensor], Outputs],
    *,
    images: Iterable[Tensor],
    shapes_px: Iterable[tuple[int, int]],
    part: Part,
) -> Agreement:
    """Compare a file with the untouched model, run as its library does."""
    shapes_px, total = list(shapes_px), Agreement()
    for index, image in enumerate(images):
        image = resized(image, shape_px=shapes_px[index % len(shapes_px)])
        found = file(as_input(image))
        expected = reference(model, image, part=part)
        total += compared(expected, found, longest_px=max(image.shape))
    return total


def compared(expected: Outputs, found: Outputs, *, longest_px: int) -> Agreement:
    """Compare the outputs for an image with those that are expected.

    Args:
        expected: Outputs of the model.
        found: Outputs of the file; it may have more.
        longest_px: Longer side of the image.
    """
    total = Agreement()
    if 'boxes' in expected:
        total += _compared_detections(expected, found, longest_px=longest_px)
    differences = {
        name: _difference(ours, found[name], is_map=name == 'panoptic')
        for name, ours in expected.items()
        if name not in ('boxes', 'scores', 'labels', 'masks')
    }
    return total + Agreement(differences)


def _difference(ours: Tensor, theirs: Tensor, *, is_map: bool) -> float:
    """Return the share of pixels of a map that differ, or the largest relative difference."""
    if ours.shape != theirs.shape:
        return math.nan
    if is_map:
        return (ours != theirs).float().mean().item()
    return ((ours - theirs).abs().max() / ours.abs().max()).item()


def _compared_detections(expected: Outputs, found: Outputs, *, longest_px: int) -> Agreement:
    """Find the partner of each detection, in whatever order they are."""
    names = [name for name in ('boxes', 'scores', 'labels', 'masks') if name in expected]
    ours, theirs = ({name: outputs[name][0] for name in names} for outputs in (expected, found))
    count = max(len(ours['boxes']), len(theirs['boxes']))
    total, taken = Agreement(num_detections=count), set[int]()
    for i, label in enumerate(ours['labels']):
        by_box = (theirs['boxes'] - ours['boxes'][i]).abs().amax(1) / longest_px
        by_score = (theirs['scores'] - ours['scores'][i]).abs()
        distance = torch.maximum(by_box, by_score)
        distance = torch.where(theirs['labels'] == label, distance, torch.inf)
        for j in distance.argsort(stable=True).tolist():
            # Sorted by distance: all others are farther.
            if not distance[j] <= _TOLERANCES['boxes']:
                break
            if j in taken:
                continue
            taken.add(j)
            differences = {'boxes': by_box[j].item(), 'scores': by_score[j].item()}
            if 'masks' in ours:
                differences['masks'] = _differing_share(ours['masks'][i], theirs['masks'][j])
            if Agreement(differences).is_close:
                total += Agreement(differences, num_agreeing=1)
            break
    return total


def _differing_share(ours: Tensor, theirs: Tensor) -> float:
    """Return the share of differing pixels in the union of two masks; a single one is ignored."""
    num_covered, num_different = (ours | theirs).sum().item(), (ours ^ theirs).sum().item()
    return num_different / num_covered if num_different > 1 else 0.0
