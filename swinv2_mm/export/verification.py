"""Verify an exported file against the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .images import resized
from .model import LibraryModel, Part, reference

Outputs = Mapping[str, Tensor]
# Largest difference from PyTorch, relative to the largest output, that float32 rounding explains.
TOLERANCE = 1e-4
# Of a detection: of its score, and of its box relative to the image.
_DETECTION_TOLERANCE = 1e-3
# Of the pixels of a mask, or of a panoptic map: those whose value is at the threshold.
_PIXEL_TOLERANCE = 1e-2
# Of the detections of all images. Rounding decides which of two boxes of one score suppresses the
# other, and on which side of a threshold a score lies.
LEAST_AGREEING = 0.99


@dataclass(frozen=True)
class Agreement:
    """How far a file is from the model.

    Attributes:
        difference: The largest of an output, relative to its largest value; of detections, of
            those that agree. NaN if an output has one.
        num_agreeing: Detections that agree in class, score, box and mask.
        num_detections: Detections of the model or of the file, whichever are more.
    """

    difference: float
    num_agreeing: int = 0
    num_detections: int = 0

    @property
    def is_close(self) -> bool:
        """Whether rounding explains the difference."""
        limit = _DETECTION_TOLERANCE if self.num_detections else TOLERANCE
        enough = self.num_agreeing >= LEAST_AGREEING * self.num_detections
        return bool(self.difference <= limit and enough)

    def __str__(self) -> str:
        found = f'largest relative difference {self.difference:.2g}'
        if self.num_detections:
            found += f', {self.num_agreeing} of {self.num_detections} detections agree'
        return found

    def __add__(self, other: Agreement) -> Agreement:
        # NaN stays.
        larger = max(torch.tensor(self.difference), torch.tensor(other.difference), key=_nan_last)
        return Agreement(
            larger.item(),
            self.num_agreeing + other.num_agreeing,
            self.num_detections + other.num_detections,
        )


def _nan_last(value: Tensor) -> float:
    return torch.nan_to_num(value, nan=torch.inf).item()


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
    shapes_px, total = list(shapes_px), Agreement(0.0)
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
    total = Agreement(0.0)
    if 'boxes' in expected:
        total += _compared_detections(expected, found, longest_px=longest_px)
    for name in expected.keys() - {'boxes', 'scores', 'labels', 'masks'}:
        ours, theirs = expected[name], found[name]
        if ours.shape != theirs.shape:
            return Agreement(float('nan'))
        if name == 'panoptic':
            is_close = (ours != theirs).float().mean().item() <= _PIXEL_TOLERANCE
            total += Agreement(0.0, int(is_close), 1)
        else:
            total += Agreement(((ours - theirs).abs().max() / ours.abs().max()).item())
    return total


def _compared_detections(expected: Outputs, found: Outputs, *, longest_px: int) -> Agreement:
    """Find the partner of each detection, in whatever order they are."""
    ours = {name: output[0] for name, output in expected.items() if name != 'panoptic'}
    theirs = {name: found[name][0] for name in ours}
    count = max(len(ours['boxes']), len(theirs['boxes']))
    worst, num_agreeing = 0.0, 0
    taken: set[int] = set()
    for i, label in enumerate(ours['labels']):
        by_box = (theirs['boxes'] - ours['boxes'][i]).abs().amax(1) / longest_px
        distance = torch.maximum(by_box, (theirs['scores'] - ours['scores'][i]).abs())
        distance = torch.where(theirs['labels'] == label, distance, torch.inf)
        for j in distance.argsort(stable=True).tolist():
            if not distance[j] <= _DETECTION_TOLERANCE:
                break
            if j not in taken:
                taken.add(j)
                if 'masks' not in ours or _same_mask(ours['masks'][i], theirs['masks'][j]):
                    worst = max(worst, distance[j].item())
                    num_agreeing += 1
                break
    return Agreement(worst, num_agreeing, count)


def _same_mask(ours: Tensor, theirs: Tensor) -> bool:
    num_covered, num_different = (ours | theirs).sum().item(), (ours ^ theirs).sum().item()
    return num_different <= max(1, _PIXEL_TOLERANCE * num_covered)


def logits(file: Callable[[Tensor], Outputs], inputs: Iterable[Tensor]) -> Tensor:
    """Return the logits of a classifier's file: (images, classes)."""
    return torch.cat([file(x)['logits'] for x in inputs])
