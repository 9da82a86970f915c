"""Apply non-maximum suppression within each class."""

from __future__ import annotations

import torch
from mmcv.ops import batched_nms
from torch import Tensor


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, nms: dict | None, limit: int
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression within each class, by mmcv.

    Args:
        boxes: Corners ``x1, y1, x2, y2`` in pixels, float32.
        scores: In [0, 1].
        labels: Class indices.
        nms: Such as ``dict(type='soft_nms', iou_threshold=0.5)``; ``None`` only sorts.
        limit: How many may stay; 0 or less for all, as in mmdet.

    Shapes:
        (K, 4), (K,), (K,) -> (kept,), (kept,)

    Returns:
        Indices of what stays, best first, and the scores, which soft-NMS lowers.
    """
    if len(boxes) == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device), scores
    rows, kept = batched_nms(boxes, scores, labels, nms)
    if limit > 0:
        rows, kept = rows[:limit], kept[:limit]
    return kept, rows[:, -1]
