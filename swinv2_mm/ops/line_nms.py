"""Non-maximum suppression of lanes (CLRNet, Zheng et al., 2022), which mmdet calls on CUDA only.

Shape letters: ``K`` lanes, ``S`` horizontal strips that cut the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import compute_dtype

START, LENGTH, FIRST_X = 2, 4, 5  # columns of a lane


def line_nms_forward(
    boxes: Tensor, scores: Tensor, thresh: float, top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the lanes that survive, best score first.

    A lane goes when its mean distance from a better one that stays, over the strips that both
    cross, is less than ``thresh``.

    Args:
        boxes: Lanes: their start in [0, 1] in column 2, their number of strips in column 4, then
            the place on each strip.
        scores: One per lane.
        thresh: In the unit of the places.
        top_k: Lanes that are kept at most.

    Returns:
        Indices of the kept lanes, filled up with zeros; their number; for each lane one plus the
        place, among the kept ones, of the lane that stands for it, or 0.

    Shapes:
        (K, 5 + S), (K,) -> (K,), (), (K,)
    """
    lanes = boxes.to(compute_dtype(boxes))
    places = lanes[:, FIRST_X:]
    num_strips = places.shape[1]
    strips = torch.arange(num_strips, device=lanes.device)
    start = (lanes[:, START] * (num_strips - 1) + 0.5).long()
    end = start + lanes[:, LENGTH].long() - 1
    keep, parent = scores.new_zeros((2, len(lanes)), dtype=torch.long)
    count = 0
    for lane in scores.argsort(descending=True).tolist():
        if parent[lane] or count == top_k:
            continue
        keep[count] = lane
        count += 1
        first = torch.maximum(start, start[lane])
        last = torch.minimum(end, end[lane]).clamp(max=num_strips - 1)
        is_common = (strips >= first[:, None]) & (strips <= last[:, None]) & (first >= 0)[:, None]
        num_common = is_common.sum(1)
        distance = ((places - places[lane]).abs() * is_common).sum(1)
        is_near = (distance < thresh * num_common) & (num_common > 0) & (parent == 0)
        is_near[lane] = True
        parent[is_near] = count
    return keep, keep.new_tensor(count), parent
