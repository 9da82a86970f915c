"""Verify an exported file against the model, and measure its top-1 accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .files import Run
from .images import resized
from .model import Part, reference

# Largest difference from PyTorch, relative to the largest output, that float32 rounding explains.
TOLERANCE = 1e-4


def as_input(image: Tensor) -> Tensor:
    """Turn a BGR image into what an exported model takes: (3, H, W) -> (1, 3, H, W), RGB."""
    return image.flip(0)[None].float()


def largest_difference(
    model: nn.Module,
    run: Run,
    *,
    images: Iterable[Tensor],
    shapes_px: Iterable[tuple[int, int]],
    part: Part,
) -> float:
    """Compare a file with the untouched model, run as its library does.

    Returns:
        The largest difference of an output relative to its largest value, over all images and
        outputs; NaN if an output has one.
    """
    shapes_px, worst = list(shapes_px), torch.zeros(())
    for index, image in enumerate(images):
        image = resized(image, shape_px=shapes_px[index % len(shapes_px)])
        expected = reference(model, image, part=part)
        for ours, theirs in zip(expected, run(as_input(image)), strict=True):
            if ours.shape != theirs.shape:
                return float('nan')
            worst = torch.maximum(worst, (ours - theirs).abs().max() / ours.abs().max())
    return worst.item()


def logits(run: Run, images: Iterable[Tensor], *, shape_px: tuple[int, int]) -> Tensor:
    """Return the logits of a classifier's file for images of one size: (images, classes)."""
    inputs = (as_input(resized(image, shape_px=shape_px)) for image in images)
    return torch.cat([run(x)[0] for x in inputs])


def top1_rates(
    runs: Iterable[Run],
    samples: Iterable[dict[str, Any]],
    *,
    shape_px: tuple[int, int] | None,
) -> tuple[list[float], int]:
    """Measure the accuracy of several files on the same images.

    Args:
        runs: From ``files.opened``.
        samples: From ``images.samples``, of a classification data set.
        shape_px: The size that the files take; ``None`` for any.

    Returns:
        The top-1 accuracy of each, in [0, 1], and the number of images.
    """
    runs = list(runs)
    hits, number = [0] * len(runs), 0
    for sample in tqdm(samples, desc='accuracy', unit='image', disable=None):
        image = sample['inputs']
        if shape_px is not None:
            image = resized(image, shape_px=shape_px)
        label = int(sample['data_samples'].gt_label)
        for i, run in enumerate(runs):
            hits[i] += int(run(as_input(image))[0].argmax()) == label
        number += 1
    return [count / max(number, 1) for count in hits], number
