"""The readable backends of window attention: all windows at once, by operations or by torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..position_bias import pairwise_bias
from ..window_partition import WindowGrid, attention_mask, from_windows, to_windows

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# Upper bound of the learnt scale (paper: the temperature is larger than 0.01).
MAX_LOGIT_SCALE = math.log(100.0)


def bounded_scale(logit_scale: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return the factor of each head's cosines: (heads, 1, 1) -> (heads, 1, 1)."""
    scale = logit_scale.to(dtype).clamp(max=MAX_LOGIT_SCALE).exp()
    return scale.reshape(-1, 1, 1)


def _attend_windows(
    windows: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None, kernel: Kernel
) -> Tensor:
    """Attend within windows that need the same mask.

    Shapes:
        windows (B, nH, Mh, nW, Mw, 3C), scale (heads, 1, 1), bias (heads, N, N), mask (N, N)
        -> (B, nH, Mh, nW, Mw, C)
    """
    b, nh, mh, nw, mw, channels = windows.shape
    num_heads = scale.shape[0]
    head_dim = channels // (3 * num_heads)
    x = windows.unflatten(-1, (3, num_heads, head_dim)).permute(5, 0, 1, 3, 6, 2, 4, 7)
    x = x.reshape(3, b * nh * nw, num_heads, mh * mw, head_dim)
    q, k, v = x.to(scale.dtype).unbind()
    q = F.normalize(q, dim=-1) * scale
    k = F.normalize(k, dim=-1)
    out = kernel(q, k, v, bias if mask is None else bias + mask)
    out = out.to(windows.dtype).reshape(b, nh, nw, num_heads, mh, mw, head_dim)
    return out.permute(0, 1, 4, 2, 5, 3, 6).flatten(-2)


def _attend(
    qkv: Tensor, grid: WindowGrid, attend_to: Callable[[Tensor, Tensor | None], Tensor]
) -> Tensor:
    """Run ``attend_to`` on all windows, those that need the same mask at once.

    Only the last windows along an axis can hold a seam or padding, so a map has at most nine
    kinds of window, and the mask of all interior ones is empty.
    """
    windows = to_windows(qkv, grid=grid)
    dtype = torch.promote_types(qkv.dtype, torch.float32)
    rows = []
    for row in grid.axis_runs(0):
        row_windows = windows[:, row.start : row.stop]
        parts = []
        for column in grid.axis_runs(1):
            mask = attention_mask(
                row.origins, columns=column.origins, device=qkv.device, dtype=dtype
            )
            parts.append(attend_to(row_windows[:, :, :, column.start : column.stop], mask))
        rows.append(torch.cat(parts, dim=3) if len(parts) > 1 else parts[0])
    out = torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]
    return from_windows(out, grid=grid)


def _attend_at_once(
    qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor, *, kernel: Kernel
) -> Tensor:
    dtype = torch.promote_types(qkv.dtype, torch.float32)
    scale = bounded_scale(logit_scale, dtype=dtype)
    bias = pairwise_bias(bias.to(dtype), window=grid.window)
    return _attend(qkv, grid, lambda x, mask: _attend_windows(x, scale, bias, mask, kernel))


def _softmax_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) + bias, dim=-1) @ v


def _sdpa_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)


def eager(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """The readable definition: logits, softmax and the weighted sum one after another.

    Args:
        qkv: Queries, keys and values of the map.
        grid: The window geometry.
        logit_scale: Logarithm of the scale of each head, before it is bounded.
        bias: Position bias per head and offset.

    Shapes:
        qkv (B, H, W, 3C), logit_scale (heads, 1, 1), bias (heads, (2Mh - 1) * (2Mw - 1))
        -> (B, H, W, C)
    """
    return _attend_at_once(qkv, grid, logit_scale, bias, kernel=_softmax_kernel)


def at_once(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """``eager`` through torch's fused attention, with the scale folded into the queries."""
    return _attend_at_once(qkv, grid, logit_scale, bias, kernel=_sdpa_kernel)
