"""Multi-scale deformable attention (Zhu et al., 2021), in plain torch.

The output is a sum over levels, so forward and backward go level by level: only one level's samples
are held at a time. Backward recomputes them, like the compiled op.

Shape letters: ``B`` images, ``S`` map pixels of all levels, ``Q`` queries, ``L`` levels, ``P``
points, ``d`` channels of one head, ``h`` heads.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import compute_dtype


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sum of bilinear samples, per query and head.

    Args:
        value: The maps of all levels, flattened and strung together.
        value_spatial_shapes: Height and width of each level.
        value_level_start_index: Where each level starts along ``S``.
        sampling_locations: ``x, y`` from (0, 0), the outer corner of the first pixel, to (1, 1).
            What lies outside the map counts as zero.
        attention_weights: One per sample.
        im2col_step: Images per launch of the compiled op; unused.

    Shapes:
        (B, S, h, d), (L, 2), (L,), (B, Q, h, L, P, 2), (B, Q, h, L, P) -> (B, Q, h*d)
    """
    dtype = compute_dtype(value, sampling_locations, attention_weights)
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    output = value.new_zeros((batch, queries, heads * channels), dtype=dtype)
    for level, span, size in _levels(value_spatial_shapes, value_level_start_index):
        output += attend(
            value[:, span].to(dtype),
            sampling_locations[:, :, :, level].to(dtype),
            attention_weights[:, :, :, level].to(dtype),
            size=size,
        )
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of value, locations and weights to the three ``grad_`` buffers.

    The other arguments are those of :func:`ms_deform_attn_forward`.

    Shapes:
        grad_output (B, Q, h*d), and each buffer as the tensor it belongs to
    """
    dtype = compute_dtype(value, sampling_locations, attention_weights)
    grad_output = grad_output.to(dtype)
    for level, span, size in _levels(value_spatial_shapes, value_level_start_index):
        leaves = [
            tensor.detach().to(dtype).requires_grad_()
            for tensor in (
                value[:, span],
                sampling_locations[:, :, :, level],
                attention_weights[:, :, :, level],
            )
        ]
        with torch.enable_grad():
            output = attend(*leaves, size=size)
        grads = torch.autograd.grad(output, leaves, grad_output)
        grad_value[:, span] = grads[0]
        grad_sampling_loc[:, :, :, level] = grads[1]
        grad_attn_weight[:, :, :, level] = grads[2]


def _levels(
    spatial_shapes: Tensor, level_start_index: Tensor
) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Index, place along ``S`` and (height, width) of each level."""
    starts = level_start_index.tolist()
    for level, (height, width) in enumerate(spatial_shapes.tolist()):
        yield level, slice(starts[level], starts[level] + height * width), (height, width)


def attend(value: Tensor, locations: Tensor, weights: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Return the share of one level in the output.

    Shapes:
        (B, H*W, h, d), (B, Q, h, P, 2), (B, Q, h, P) -> (B, Q, h*d)
    """
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, channels, *size)
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    samples = F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    weighted = samples * weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)
    return weighted.sum(-1).view(batch, heads * channels, queries).transpose(1, 2)
