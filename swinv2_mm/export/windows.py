"""Window attention in tensor operations only, so that a traced graph fits any image size.

``core`` works out padding, shift and masks in Python, once per size, which a trace would freeze at
the size of its example. Here they follow from the size inside the graph. A map that is smaller
than a window is padded to it instead of the window being clipped: no real token sees a padded one,
so the outcome is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_mm.core.attention.mask import SEAM_PENALTY
from swinv2_mm.core.attention.prologue import MAX_LOGIT_SCALE
from swinv2_mm.core.window_partition import Size

# Where a token along one axis of the shifted, padded map comes from.
_INSIDE, _WRAPPED, _PADDED = 0, 1, 2


class TracedAxis(NamedTuple):
    """One axis of a map cut into windows.

    Attributes:
        take: Index on the map of each token of the shifted, padded axis.
        back: Index on the shifted, padded axis of each token of the map.
        origins: Whether a token lies inside, was wrapped around or is padding; (windows, side).
    """

    take: Tensor
    back: Tensor
    origins: Tensor


class TracedGrid(NamedTuple):
    """What the attention of a block needs to know of its windows.

    Attributes:
        window: Sides of a window, in tokens.
        nominal_window: Sides before it was clipped or balanced.
        pairs: Index into the bias table of each (query, key); (N, N).
        axes: Vertical and horizontal; ``None`` if windows tile the map without a shift.
        mask: What is added to the logits; (nH, nW, 1, N, N), or ``None`` with ``axes``.
    """

    window: Size
    nominal_window: Size
    pairs: Tensor
    axes: tuple[TracedAxis, TracedAxis] | None
    mask: Tensor | None


def trace_axis(length: int | torch.SymInt, *, side: int, shift: int) -> TracedAxis:
    """Cut an axis into windows.

    Args:
        length: Tokens along the axis, perhaps only known when the graph runs.
        side: Tokens of a window.
        shift: Cyclic shift, which an axis that one window covers does without.
    """
    num_windows = (length + side - 1) // side
    # As tensors: operations between a tensor and a symbolic number translate badly.
    size, padded_size = torch.full((), length), torch.full((), num_windows * side)
    applied = torch.where(size > side, shift, 0)
    source = torch.remainder(torch.arange(num_windows * side) + applied, padded_size)
    back = torch.remainder(torch.arange(length) - applied + padded_size, padded_size)
    origins = torch.where(source < applied, _WRAPPED, _INSIDE)
    origins = torch.where(source >= size, _PADDED, origins)
    return TracedAxis(torch.minimum(source, size - 1), back, origins.unflatten(0, (-1, side)))


def trace_mask(rows: Tensor, *, columns: Tensor) -> Tensor:
    """Return what is added to the logits of each window; see ``attention_mask`` of core.

    Shapes:
        (nH, Mh), (nW, Mw) -> (nH, nW, 1, N, N), query by key
    """
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    segments = 2 * (rows == _WRAPPED).long() + (columns == _WRAPPED).long()
    is_padded = (rows == _PADDED) | (columns == _PADDED)
    segments = torch.where(is_padded, -1, segments).flatten(2)[:, :, None]
    query, key = segments.unsqueeze(-1), segments.unsqueeze(-2)
    mask = torch.where(query == key, 0.0, SEAM_PENALTY)
    return torch.where((query != -1) & (key == -1), -torch.inf, mask)


def bias_pairs(window: Size) -> Tensor:
    """Return the entry of the bias table, offset query minus key, of all pairs in a window.

    Shapes:
        -> (N, N), query by key
    """
    mh, mw = window
    vertical, horizontal = (
        torch.arange(side)[:, None] - torch.arange(side) + side - 1 for side in window
    )
    index = vertical[:, None, :, None] * (2 * mw - 1) + horizontal[None, :, None, :]
    return index.reshape(mh * mw, mh * mw)


def attend(qkv: Tensor, grid: TracedGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """A backend of ``core.attention`` for tracing.

    Shapes:
        qkv (B, H, W, 3C), logit_scale (heads, 1, 1), bias (heads, (2Mh - 1) * (2Mw - 1))
        -> (B, H, W, C)
    """
    num_heads, (mh, mw) = logit_scale.numel(), grid.window
    if grid.axes is not None:
        rows, columns = grid.axes
        qkv = qkv.index_select(1, rows.take).index_select(2, columns.take)
    # The numbers of windows stay axes of their own: a product of two unknown numbers could not be
    # taken apart again.
    x = qkv.unflatten(2, (-1, mw)).unflatten(1, (-1, mh)).unflatten(-1, (3, num_heads, -1))
    q, k, v = x.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).unbind()
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    logits = F.normalize(q, dim=-1) * scale @ F.normalize(k, dim=-1).transpose(-2, -1)
    logits = logits + bias[:, grid.pairs]
    if grid.mask is not None:
        logits = logits + grid.mask
    out = (torch.softmax(logits, dim=-1) @ v).unflatten(4, (mh, mw))
    out = out.permute(0, 1, 4, 2, 5, 3, 6).flatten(5).flatten(3, 4).flatten(1, 2)
    if grid.axes is None:
        return out
    return out.index_select(1, rows.back).index_select(2, columns.back)
