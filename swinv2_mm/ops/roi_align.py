"""RoIAlign (He et al., 2017) with average pooling, computed by torchvision."""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from swinv2_mm.core.torch_private import vision_operator

from .missing_op import missing_op
from .precision import compute_dtype

AVERAGE = 1  # the code mmcv passes for pool_mode='avg'; 0 is 'max'


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the pooled boxes to ``output``.

    Args:
        input: The map, NCHW.
        rois: Image index and corners ``x1, y1, x2, y2``; a unit is ``spatial_scale`` map pixels.
        output: Written in place.
        argmax_y, argmax_x: For max pooling; unused.
        aligned_height, aligned_width: Size of the output.
        spatial_scale: Size of the map divided by that of the image the boxes refer to.
        sampling_ratio: Points per bin and axis; 0 for one per map pixel, rounded up.
        pool_mode: :data:`AVERAGE`.
        aligned: Whether pixel centres lie at half-integers; else boxes are half a pixel off and at
            least one pixel wide and high.

    Shapes:
        input (B, C, H, W), rois (K, 5), output (K, C, aligned_height, aligned_width)
    """
    _require_average(pool_mode, op='roi_align_forward')
    if output.numel() == 0:
        return
    dtype = compute_dtype(input, rois)
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.to(dtype),
            rois.to(dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of the map to ``grad_input``; boxes have none.

    The arguments are those of :func:`roi_align_forward`.

    Shapes:
        grad_output (K, C, aligned_height, aligned_width), rois (K, 5), grad_input (B, C, H, W)
    """
    _require_average(pool_mode, op='roi_align_backward')
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(grad_output, rois)
    grad_input.add_(
        vision_operator('_roi_align_backward')(
            grad_output.to(dtype),
            rois.to(dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _require_average(pool_mode: int, *, op: str) -> None:
    if pool_mode != AVERAGE:
        raise missing_op(f"{op} with pool_mode='max'")
