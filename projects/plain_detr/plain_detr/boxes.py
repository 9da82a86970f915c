"""Boxes (left, top, right, bottom) in pixels, and how they change from a reference box."""

import math

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from torch import Tensor

STRIDE_PX = 16  # of the map, which is twice as fine as the backbone's last
MAX_LOG_RATIO = -math.log(16 / 1000)  # of a side to that of its reference
MIN_SIDE_PX = 0.1  # added to sides that are divided by: a reference can be clipped to nothing


def decode_boxes(references: Tensor, deltas: Tensor, limits: Tensor) -> Tensor:
    """Shift and scale references; clip the result to ``limits``. All (B, Q, 4)."""
    centre, size = bbox_xyxy_to_cxcywh(references).chunk(2, dim=-1)
    shift, log_ratio = deltas.float().chunk(2, dim=-1)
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    boxes = bbox_cxcywh_to_xyxy(torch.cat([centre + shift * size, size * ratio], dim=-1))
    return boxes.clamp(min=0).minimum(limits)


def encode_boxes(references: Tensor, boxes: Tensor) -> Tensor:
    """Return the deltas that lead from references to boxes, (..., 4) each; both broadcast."""
    centre, size = bbox_xyxy_to_cxcywh(references).chunk(2, dim=-1)
    size = size + MIN_SIDE_PX
    wanted_centre, wanted_size = bbox_xyxy_to_cxcywh(boxes).chunk(2, dim=-1)
    return torch.cat([(wanted_centre - centre) / size, (wanted_size / size).log()], dim=-1)
