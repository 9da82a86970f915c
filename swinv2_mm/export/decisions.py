"""Decisions of detectors on tensors alone: the best scores, NMS, boxes inside the image.

mmdet branches on the values of tensors here, which a graph cannot hold. Every function computes
what mmdet's does, also for no box at all.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision.ops
from torch import Tensor

from swinv2_mm.errors import UserError

# ``test_cfg`` of a model, or a part of it.
Settings = Any
# Height and width; numbers that are left open in a graph.
Size = tuple[int, int]
# Outputs of a detector, by name.
Outputs = dict[str, Tensor]


def side_lengths(height: int | torch.SymInt, width: int | torch.SymInt) -> Tensor:
    """Return (width, height, width, height) as a tensor, also of sizes that are left open."""
    sides = [torch.full((), side, dtype=torch.float32) for side in (width, height)]
    return torch.stack(sides * 2)


def pixels(height: int | torch.SymInt, width: int | torch.SymInt) -> tuple[Tensor, Tensor]:
    """Return the row and the column of each pixel of a map: (H * W,), (H * W,)."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    # Sums, which are contiguous: to flatten a view torch would ask for the sizes.
    all_rows, all_columns = rows + torch.zeros_like(columns), columns + torch.zeros_like(rows)
    return all_rows.flatten(), all_columns.flatten()


def clipped(boxes: Tensor, sides: Tensor) -> Tensor:
    """Clip corners to the image: (N, 4) -> (N, 4)."""
    return torch.minimum(boxes.clamp(min=0), sides)


def best_of_level(scores: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return the scores of a level that go on, and their indices: (N,) -> (k,), (k,)."""
    count, num_most = scores.shape[0], settings.get('nms_pre', -1)
    if num_most > 0:
        # Python's own would compare, and so fix, a size that is left open.
        count = min(count, num_most) if isinstance(count, int) else torch.sym_min(count, num_most)
    return scores.topk(count)


def suppressed(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, nms: Settings, num_most: int
) -> tuple[Tensor, Tensor]:
    """Drop boxes that overlap a better one of their group.

    Args:
        boxes: Corners, not negative.
        scores: One per box.
        groups: Classes, or levels of a pyramid.
        nms: Settings of the suppression, with ``type`` ``nms`` or ``soft_nms``.
        num_most: Boxes that stay at most.

    Returns:
        Indices and scores of the boxes that stay, sorted by score.

    Shapes:
        (N, 4), (N,), (N,) -> (n,), (n,)

    Raises:
        UserError: If the type is another.
    """
    if not nms.get('class_agnostic', False):
        # Groups are moved apart. Without boxes the zero is the largest coordinate.
        end = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
        boxes = boxes + (groups.to(boxes.dtype) * (end + 1))[:, None]
    kind = nms.get('type', 'nms')
    if kind == 'nms':
        # torchvision has graphs assert that two boxes stay: two more, which overlap nothing, do.
        apart = boxes.new_tensor([[-2.0, -2.0, -1.0, -1.0], [-4.0, -4.0, -3.0, -3.0]])
        keep = torchvision.ops.nms(
            torch.cat([apart, boxes]),
            torch.cat([scores.new_full((len(apart),), -1.0), scores]),
            nms.iou_threshold,
        )
        keep = (keep[(keep >= len(apart)).nonzero()[:, 0]] - len(apart))[:num_most]
        return keep, scores[keep]
    if kind == 'soft_nms':
        return _softly_suppressed(boxes, scores, nms=nms, num_most=num_most)
    raise UserError(f'nms of type {kind} cannot be exported: nms and soft_nms can')


def best_of_all(
    boxes: list[Tensor], scores: list[Tensor], groups: list[Tensor], settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Join the levels and drop boxes that are too small or overlap a better one of their group.

    Shapes:
        [(N, 4)], [(N,)], [(N,)] -> (n, 4), (n,), (n,)
    """
    box, score, group = torch.cat(boxes), torch.cat(scores), torch.cat(groups)
    smallest = settings.get('min_bbox_size', -1)
    if smallest >= 0:
        wide = ((box[:, 2:] - box[:, :2]) > smallest).all(dim=1).nonzero()[:, 0]
        box, score, group = box[wide], score[wide], group[wide]
    keep, score = suppressed(box, score, group, nms=settings.nms, num_most=settings.max_per_img)
    return box[keep], score, group[keep]


def _softly_suppressed(
    boxes: Tensor, scores: Tensor, *, nms: Settings, num_most: int
) -> tuple[Tensor, Tensor]:
    """Pick the best box and lower the scores of its neighbours, as often as boxes are wanted."""
    method, threshold = nms.get('method', 'linear'), nms.get('iou_threshold', 0.3)
    smallest = nms.get('min_score', 1e-3)
    # A box that is never picked, so that there is always one.
    boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
    scores = torch.cat([scores, scores.new_full((1,), -1.0)])
    corners, areas = boxes.unbind(1), (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    numbers = torch.arange(scores.shape[0])
    picked, kept = [], []
    for _ in range(num_most):
        score, index = scores.max(0)
        picked.append(index)
        kept.append(score)
        left, top, right, bottom = (corner[index] for corner in corners)
        width = (torch.minimum(corners[2], right) - torch.maximum(corners[0], left)).clamp(min=0)
        height = (torch.minimum(corners[3], bottom) - torch.maximum(corners[1], top)).clamp(min=0)
        overlap = width * height
        iou = overlap / (areas + areas[index] - overlap)
        if method == 'gaussian':
            decay = torch.exp(-(iou * iou) / nms.get('sigma', 0.5))
        else:
            lowered = 1 - iou if method == 'linear' else torch.zeros_like(iou)
            decay = torch.where(iou >= threshold, lowered, 1.0)
        # Below the smallest score, and once picked, a box is out.
        scores = torch.where(scores > 0, scores * decay, scores)
        scores = torch.where((scores < smallest) | (numbers == index), -1.0, scores)
    final = torch.stack(kept)
    valid = (final > 0).nonzero()[:, 0]
    return torch.stack(picked)[valid], final[valid]


def detections(
    boxes: Tensor, scores: Tensor, *, settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Decide which classes of which boxes are detections, as mmdet's ``multiclass_nms``.

    Args:
        boxes: Boxes of every class, or one for all of them.
        scores: Scores of every class, without the background.
        settings: The ``test_cfg`` of the head: ``score_thr``, ``nms`` and ``max_per_img``.

    Shapes:
        (N, C * 4) or (N, 4), (N, C) -> (n, 4), (n,), (n,)
    """
    num_classes = scores.shape[1]
    flat = scores.reshape(-1)
    sure = (flat > settings.score_thr).nonzero()[:, 0]
    labels = sure % num_classes
    rows = sure // num_classes if boxes.shape[1] == 4 else sure
    candidates = boxes.reshape(-1, 4)[rows]
    keep, kept_scores = suppressed(
        candidates, flat[sure], labels, nms=settings.nms, num_most=settings.max_per_img
    )
    return candidates[keep], kept_scores, labels[keep]
