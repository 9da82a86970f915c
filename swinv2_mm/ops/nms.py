"""Non-maximum suppression and the groups that it makes, computed by torchvision."""

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


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes around those that survive non-maximum suppression.

    A box joins the best one, not yet in a group itself, with which its IoU is at least
    ``iou_threshold``.

    Args:
        dets: Corners ``x1, y1, x2, y2`` and score.
        iou_threshold: In [0, 1].

    Returns:
        Indices of each group, the survivor first, the others from the best score down.

    Shapes:
        (K, 5)
    """
    order = dets[:, 4].argsort(descending=True, stable=True)
    boxes = dets[order, :4].to(compute_dtype(dets))
    # mmcv compares with a float.
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    is_near = torchvision.ops.box_iou(boxes, boxes) >= threshold
    is_free = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    groups = []
    for place in range(len(boxes)):
        if is_free[place]:
            group = is_near[place] & is_free
            group[place] = False
            is_free &= ~group
            is_free[place] = False
            groups.append(order[[place, *group.nonzero()[:, 0].tolist()]].tolist())
    return groups
