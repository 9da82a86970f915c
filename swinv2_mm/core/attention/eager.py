"""Define the reference backends: all windows with the same mask in one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..position_bias import computing_dtype, pairwise_bias
from ..tracing import fx_leaf
from ..window_partition import WindowGrid, from_windows, to_windows
from .mask import attention_mask
from .prologue import bounded_scale, cosine_operands, dot_operands, merge_heads

# Queries, keys, values (n, heads, N, d) and what is added to the logits (heads, N, N).
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
# Origins of the tokens of a window along each axis (``AxisRun.origins``).
Origins = tuple[tuple[int, ...], ...]


def attention_weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Return the softmax over the keys of logits that a bias is added to (equation 2).

    Shapes:
        (..., Q, d), (..., N, d), bias that broadcasts to (..., Q, N) -> (..., Q, N)
    """
    return torch.softmax(q @ k.transpose(-2, -1) + bias, dim=-1)


def _softmax_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return attention_weights(q, k, bias) @ v


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
        -> (B, H, W, C); maps of a video have an axis of time before H
    """
    scale = bounded_scale(logit_scale, dtype=computing_dtype(qkv))
    return attend(qkv, grid, scale, bias)


def at_once(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """``eager`` through torch's fused attention, with the scale folded into the queries."""
    scale = bounded_scale(logit_scale, dtype=computing_dtype(qkv))
    return attend(qkv, grid, scale, bias, kernel=_sdpa_kernel)


@fx_leaf
def dot_product(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """``at_once`` as in Swin V1: products of queries and keys, and no learnt ``logit_scale``."""
    heads = len(bias)
    head_dim = qkv.shape[-1] // (3 * heads)
    scale = bias.new_full((heads, 1, 1), head_dim**-0.5, dtype=computing_dtype(qkv))
    return attend(qkv, grid, scale, bias, kernel=_sdpa_kernel, operands=dot_operands)


def attend(
    qkv: Tensor,
    grid: WindowGrid,
    scale: Tensor,
    bias: Tensor,
    *,
    kernel: Kernel = _softmax_kernel,
    operands: Callable[..., tuple[Tensor, Tensor, Tensor]] = cosine_operands,
) -> Tensor:
    """Run a kernel on all windows, in one batch per mask.

    Only the last windows along an axis can hold a seam or padding, so a map has at most nine
    kinds of window, and the mask of all interior ones is empty.
    """
    dtype = scale.dtype
    pairs = pairwise_bias(bias.to(dtype), window=grid.window)

    def attend_windows(windows: Tensor, origins: Origins) -> Tensor:
        mask = attention_mask(origins, device=qkv.device, dtype=dtype)
        q, k, v = operands(windows, scale=scale)
        counts = q.shape[:-3]
        q, k, v = (x.flatten(0, -4) for x in (q, k, v))
        out = kernel(q, k, v, pairs if mask is None else pairs + mask).to(qkv.dtype)
        return merge_heads(out.unflatten(0, counts)[None], window=grid.window)

    return from_windows(_by_mask(to_windows(qkv, grid=grid), grid, attend_windows), grid=grid)


def _by_mask(
    windows: Tensor,
    grid: WindowGrid,
    attend_windows: Callable[[Tensor, Origins], Tensor],
    *,
    origins: Origins = (),
) -> Tensor:
    """Run a function on the windows of each mask, axis after axis, and join the results.

    Args:
        origins: Origins along the axes that have been taken apart already.
    """
    axis = len(origins)
    if axis == len(grid.size):
        return attend_windows(windows, origins)
    place, parts = 1 + 2 * axis, []
    for run in grid.axis_runs(axis):
        part = windows.narrow(place, run.start, run.stop - run.start)
        parts.append(_by_mask(part, grid, attend_windows, origins=(*origins, run.origins)))
    return torch.cat(parts, dim=place) if len(parts) > 1 else parts[0]
