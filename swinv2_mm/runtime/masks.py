"""Bring masks to the size of an image: those of boxes, in products of matrices, and of queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Mask2Former computes its masks on a map of this stride.
_MASK_STRIDE = 4


def enlarged(masks: Tensor) -> Tensor:
    """Scale the mask logits of queries to the padded image: (B, Q, h, w) -> (B, Q, 4 h, 4 w)."""
    size = [side * _MASK_STRIDE for side in masks.shape[2:]]
    return F.interpolate(masks, size=size, mode='bilinear', align_corners=False)


def pasted(masks: Tensor, boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Scale the mask of each box to the box, on an empty image: bilinear, as in mmdet.

    Rows and columns are sampled one after the other, so that a product of three matrices does it.

    Shapes:
        (N, h, w), (N, 4) -> (N, height, width)
    """
    rows = _sampling(boxes[:, 1], boxes[:, 3], length=height, num_bins=masks.shape[1])
    columns = _sampling(boxes[:, 0], boxes[:, 2], length=width, num_bins=masks.shape[2])
    return rows @ masks @ columns.transpose(1, 2)


def _sampling(start: Tensor, stop: Tensor, *, length: int, num_bins: int) -> Tensor:
    """Return the weights of the bins at every pixel: (N,), (N,) -> (N, length, bins)."""
    centre = torch.arange(length, dtype=torch.float32) + 0.5
    # A box without extent covers no pixel.
    extent = (stop - start).clamp(min=torch.finfo(torch.float32).tiny)
    position = (centre - start[:, None]) / extent[:, None] * num_bins - 0.5
    bins = torch.arange(num_bins, dtype=torch.float32)
    return (1 - (position[:, :, None] - bins).abs()).clamp(min=0)
