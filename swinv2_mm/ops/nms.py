"""Non-maximum suppression, computed by torchvision."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from .precision import compute_dtype


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that survive, best score first.

    A box goes when its IoU with a better one that stays is greater than ``iou_threshold``. Equal
    scores keep their input order.

    Args:
        boxes: Corners ``x1, y1, x2, y2``.
        scores: One per box.
        iou_threshold: In [0, 1].
        offset: 1 where corners are pixels that belong to the box (width ``x2 - x1 + 1``), else 0.

    Shapes:
        (K, 4), (K,) -> (kept,)
    """
    dtype = compute_dtype(boxes, scores)
    boxes = boxes.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    # torchvision compares with a double, mmcv with a float: an IoU of exactly float32(0.6) is above
    # the double 0.6, yet must not be suppressed.
    threshold = torch.tensor(iou_threshold, dtype=dtype).item()
    return torchvision.ops.nms(boxes, scores.to(dtype), threshold)
