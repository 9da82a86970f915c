"""Define in plain torch what ``hybrid`` does before and after the attention of torch.

These functions are what the kernels are tested against, and what runs where there is no Triton.

Arrangement. Windows are sorted by mask: an axis has at most three kinds of window (``axis_runs``),
and all windows of a kind follow each other, image by image. A window has its tokens in order, the
queries in reverse: the bias of all pairs is then one strided copy of the table. It is padded to a
multiple of ``ALIGNMENT`` tokens, since torch would copy a bias that is not aligned.

Precision. Half precision is float16, whatever the model runs in: with ``BIAS_OFFSET`` no logit's
part is large, and float16 has eight times the digits of bfloat16. What could leave its range,
values and the gradient of the output, is multiplied by a power of two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...position_bias import computing_dtype, reversed_pairs, reversed_pairs_backward
from ...window_partition import (
    AxisRun,
    Size,
    WindowGrid,
    combine_origins,
    from_windows,
    to_windows,
)
from ..mask import segment_mask
from ..prologue import (
    MAX_LOGIT_SCALE,
    bounded_scale,
    cosine_operands,
    merge_heads,
    normalize_,
    normalize_backward_,
    split_heads,
)

# Tokens of a window are padded to a multiple of this.
ALIGNMENT = 8
# Subtracted from the bias, which is from 0 to 16: the softmax does not see a constant.
BIAS_OFFSET = 8.0
# Largest exponent of a power of two: the product of two of them must be a float32.
MAX_EXPONENT = 60


def operand_dtype(x: Tensor) -> torch.dtype:
    """Return the type of the operands of attention: float16 for half precision."""
    is_half = x.dtype in (torch.float16, torch.bfloat16)
    return torch.float16 if is_half else computing_dtype(x)


def grid_of_map(x: Tensor, geometry: Sequence[int]) -> WindowGrid:
    """Return the grid of a map (B, H, W, C) from ``[Mh, Mw, shift, shift]``."""
    window, shift = tuple(geometry[:2]), tuple(geometry[2:])
    return WindowGrid(tuple(x.shape[1:3]), window, shift, window)


def aligned(num_tokens: int) -> int:
    """Return the tokens of a window with padding."""
    return (num_tokens + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def kinds_of(grid: WindowGrid) -> list[tuple[AxisRun, AxisRun]]:
    """Return the runs of rows and of columns of each kind of window."""
    return list(itertools.product(grid.axis_runs(0), grid.axis_runs(1)))


def num_windows_of(grid: WindowGrid, *, batch: int) -> list[int]:
    """Return how many windows of each kind a batch of maps has."""
    return [batch * (r.stop - r.start) * (c.stop - c.start) for r, c in kinds_of(grid)]


def power_of_two(largest: Tensor) -> Tensor:
    """Return the power of two that takes the largest magnitude to [0.5, 1)."""
    wide = largest.to(computing_dtype(largest))
    exponent = torch.frexp(wide).exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT)
    return torch.ldexp(torch.ones_like(wide), -exponent)


def _arranged(x: Tensor, grid: WindowGrid) -> Tensor:
    """(parts, B, nH, nW, heads, N, d) -> (parts, windows, Np, heads, d)."""
    parts = [
        x[:, :, row.start : row.stop, column.start : column.stop].flatten(1, 3)
        for row, column in kinds_of(grid)
    ]
    x = torch.cat(parts, dim=1)
    return F.pad(x, (0, 0, 0, aligned(x.shape[-2]) - x.shape[-2])).transpose(2, 3)


def _rearranged(x: Tensor, grid: WindowGrid, *, batch: int) -> Tensor:
    """(parts, windows, Np, heads, d) -> (parts, B, nH, nW, heads, N, d)."""
    x = x[:, :, : math.prod(grid.window)].transpose(2, 3)
    out = x.new_empty(len(x), batch, *grid.num_windows, *x.shape[2:])
    kinds, counts = kinds_of(grid), num_windows_of(grid, batch=batch)
    for (row, column), part in zip(kinds, x.split(counts, dim=1), strict=True):
        place = out[:, :, row.start : row.stop, column.start : column.stop]
        place.copy_(part.reshape(place.shape))
    return out


def window_operands(qkv: Tensor, logit_scale: Tensor, largest: Tensor, grid: WindowGrid) -> Tensor:
    """Return queries, keys and values of all windows, rounded once (paper equation 2).

    Args:
        largest: The largest magnitude of a value, a scalar.

    Shapes:
        (B, H, W, 3C), (heads,) -> (3, windows, Np, heads, d)
    """
    scale = bounded_scale(logit_scale, dtype=computing_dtype(qkv))
    q, k, v = cosine_operands(to_windows(qkv, grid=grid), scale=scale)
    operands = _arranged(torch.stack((q.flip(-2), k, v * power_of_two(largest))), grid)
    return operands.to(operand_dtype(qkv), memory_format=torch.contiguous_format)


def window_operands_backward(
    d_q: Tensor,
    d_k: Tensor,
    d_v: Tensor,
    qkv: Tensor,
    logit_scale: Tensor,
    largest: Tensor,
    largest_d_out: Tensor,
    grid: WindowGrid,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``qkv`` and ``logit_scale`` from those of the operands."""
    scale = bounded_scale(logit_scale, dtype=computing_dtype(qkv))
    power = power_of_two(largest)
    d_x = torch.stack((d_q, d_k, d_v)).to(scale.dtype) / (power * power_of_two(largest_d_out))
    d_x = _rearranged(d_x, grid, batch=len(qkv))
    d_x[0] = d_x[0].flip(-2)
    d_x[2] *= power
    qk = split_heads(to_windows(qkv, grid=grid), heads=len(scale))[:2].to(scale.dtype).contiguous()
    # One axis of windows.
    of_windows, qk = d_x[:2].flatten(1, 3), qk.flatten(1, 3)
    factor = normalize_(qk, scale=scale)
    d_scale = normalize_backward_(of_windows, normalized=qk, factor=factor, scale=scale)
    d_map = from_windows(merge_heads(d_x.to(qkv.dtype), window=grid.window), grid=grid)
    d_logit_scale = (d_scale * scale).flatten() * (logit_scale <= MAX_LOGIT_SCALE)
    return d_map.contiguous(), d_logit_scale


def map_to_windows(x: Tensor, largest: Tensor, heads: int, grid: WindowGrid) -> Tensor:
    """Return the rows of a map at the queries of all windows, times a power of two.

    Shapes:
        (B, H, W, C) -> (windows, Np, heads, d)
    """
    wide = x.to(computing_dtype(x)) * power_of_two(largest)
    rows = split_heads(to_windows(wide, grid=grid), heads=heads, parts=1).flip(-2)
    return _arranged(rows, grid)[0].to(operand_dtype(x), memory_format=torch.contiguous_format)


def windows_to_map(
    x: Tensor, largest: Tensor, size: Size, dtype: torch.dtype, grid: WindowGrid
) -> Tensor:
    """Undo ``map_to_windows``, the power of two too.

    Shapes:
        (windows, Np, heads, d) -> (B, H, W, C)
    """
    wide = x.to(computing_dtype(x)) / power_of_two(largest)
    windows = _rearranged(wide[None], grid, batch=size[0]).flip(-2).to(dtype)
    return from_windows(merge_heads(windows, window=grid.window), grid=grid).contiguous()


def window_bias(
    table: Tensor, first: int, last: int, dtype: torch.dtype, grid: WindowGrid
) -> Tensor:
    """Return what is added to the logits of the kinds of window from ``first`` up to ``last``.

    Shapes:
        (heads, (2Mh - 1) * (2Mw - 1)) -> (kinds, heads, Np, Np), query in reverse order by key
    """
    heads, tokens = len(table), math.prod(grid.window)
    pairs = reversed_pairs((table - BIAS_OFFSET).to(dtype), window=grid.window)
    pairs = pairs.reshape(1, heads, tokens, tokens)
    padded, kinds = aligned(tokens), kinds_of(grid)[first:last]
    if padded == tokens and not any(any(run.origins) for kind in kinds for run in kind):
        return pairs.expand(len(kinds), -1, -1, -1).contiguous()
    bias = pairs.new_zeros(len(kinds), heads, padded, padded)
    bias[..., tokens:] = -torch.inf
    for of_kind, kind in zip(bias, kinds, strict=True):
        origins = [torch.tensor(run.origins, dtype=torch.int8) for run in kind]
        ids = combine_origins(*origins).flatten().to(table.device)
        mask = segment_mask(ids.flip(0), key=ids, dtype=dtype)
        of_kind[:, :tokens, :tokens] = pairs[0] + mask
    return bias


def window_bias_backward(
    d_bias: Tensor, largest: Tensor, largest_d_out: Tensor, grid: WindowGrid
) -> Tensor:
    """Return the gradient of the table from that of the bias of each window.

    Shapes:
        (windows, heads, Np, Np) -> (heads, (2Mh - 1) * (2Mw - 1))
    """
    dtype, tokens = computing_dtype(d_bias), math.prod(grid.window)
    d_pairs = d_bias[:, :, :tokens, :tokens].sum(0, dtype=dtype)
    d_table = reversed_pairs_backward(d_pairs, window=grid.window)
    return d_table / (power_of_two(largest) * power_of_two(largest_d_out))
