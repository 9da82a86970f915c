"""RoI pooling (Girshick, 2015) in plain torch: mmcv, unlike torchvision, does not round the boxes.

Shape letters: ``B`` images, ``C`` channels, ``H W`` map, ``K`` boxes, ``h w`` bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import compute_dtype


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the largest value of each bin to ``output``, and its place in the map to ``argmax``.

    Args:
        input: The map.
        rois: Image index and corners ``x1, y1, x2, y2``; both corner pixels belong to the box.
        output: Written in place; zero where a bin has no pixel.
        argmax: Written in place: ``y * W + x``, or -1 where a bin has no pixel.
        pooled_height, pooled_width: Number of bins.
        spatial_scale: Size of the map divided by that of the image the boxes refer to.

    Shapes:
        input (B, C, H, W), rois (K, 5), output and argmax (K, C, h, w)
    """
    height, width = input.shape[2:]
    output.zero_()
    argmax.fill_(-1)
    rois = rois.to(compute_dtype(rois))
    start, end = rois[:, 1:3] * spatial_scale, (rois[:, 3:5] + 1) * spatial_scale
    columns = _bins(start[:, 0], end[:, 0], count=pooled_width, side=width).tolist()
    rows = _bins(start[:, 1], end[:, 1], count=pooled_height, side=height).tolist()
    is_proper = (end > start).all(1).tolist()
    for box, image in enumerate(rois[:, 0].long().tolist()):
        if not is_proper[box]:
            continue
        # Along a row first, then down: of equal values the first in memory order counts.
        for x, (left, right) in enumerate(columns[box]):
            if left >= right:
                continue
            best, best_x = input[image, :, :, left:right].max(2)
            for y, (top, bottom) in enumerate(rows[box]):
                if top >= bottom:
                    continue
                output[box, :, y, x], best_y = best[:, top:bottom].max(1)
                place = best_y[:, None] + top
                place = place * width + left + best_x.gather(1, place)
                argmax[box, :, y, x] = place[:, 0]


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of the map to ``grad_input``; boxes have none."""
    channels, height, width = grad_input.shape[1:]
    planes = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    places = planes[:, :, None, None] * (height * width) + argmax
    has_pixel = argmax >= 0
    grad_input.view(-1).index_add_(0, places[has_pixel], grad_output[has_pixel])


def _bins(start: Tensor, end: Tensor, *, count: int, side: int) -> Tensor:
    """First pixel of each bin, and the first one behind it, within the map.

    Shapes:
        (K,), (K,) -> (K, count, 2)
    """
    edges = torch.arange(count + 1, device=start.device)
    edges = edges * ((end - start) / count)[:, None] + start[:, None]
    return torch.stack([edges[:, :-1].floor(), edges[:, 1:].ceil()], -1).clamp(0, side).long()
