"""The three relative position biases of the paper's table 1, as stateless functions.

A bias table holds one number per head and offset. Offsets run over (2Mh - 1) x (2Mw - 1) in
row-major order, from -(M - 1) to M - 1, query minus key.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .tensor_cache import CONSTANTS
from .torch_private import unfold_backward
from .tracing import fx_leaf, is_plain
from .window_partition import Size, WindowGrid

PositionBias = Literal['log_cpb', 'linear_cpb', 'table']
POSITION_BIASES = ('log_cpb', 'linear_cpb', 'table')

# Official scale of the log-spaced coordinates: an offset of W - 1 has log2(1 + 8) / 3.
_LOG_SCALE = 8.0
# The bias after the sigmoid is at most this (official code).
_BIAS_RANGE = 16.0


def computing_dtype(x: Tensor) -> torch.dtype:
    """Return the type that logits and biases are computed in: at least float32."""
    # Not ``torch.promote_types``: torch 2.6 writes that into an exported program as an operator.
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def relative_coords(
    window: Size,
    *,
    pretrained_window_size: Size,
    kind: Literal['log_cpb', 'linear_cpb'],
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Return the input of the bias network for every offset in a window (paper equation 4).

    Log-spaced: sign(u) * log2(1 + |u|) / 3 with u = 8 * offset / (W - 1). Linear-spaced:
    offset / (W - 1). An axis whose pretrained window is one token wide divides by 1.

    Args:
        window: Sides of the window, in tokens.
        pretrained_window_size: Sides of the window that the bias network was trained at.

    Shapes:
        -> ((2Mh - 1) * (2Mw - 1), 2), vertical coordinate first; of a video's window
        ((2Mt - 1) * (2Mh - 1) * (2Mw - 1), 3), time first
    """

    def axis(side: int, pretrained: int) -> Tensor:
        unit = torch.arange(1 - side, side, dtype=torch.float64) / max(pretrained - 1, 1)
        if kind == 'linear_cpb':
            return unit
        unit = unit * _LOG_SCALE
        return unit.sign() * unit.abs().add(1).log2() / math.log2(_LOG_SCALE)

    def build() -> Tensor:
        axes = [axis(*pair) for pair in zip(window, pretrained_window_size, strict=True)]
        grid = torch.meshgrid(*axes, indexing='ij')
        return torch.stack(grid, dim=-1).flatten(0, -2).to(device=device, dtype=dtype)

    return CONSTANTS.get(('coords', window, pretrained_window_size, kind, device, dtype), build)


def cpb_table(coords: Tensor, *, mlp: torch.nn.Sequential) -> Tensor:
    """Evaluate the continuous position bias network (paper section 3.3).

    Runs in the type of ``coords``, whatever autocast or the weights' own type; a network with hooks
    or with other layers in the place of its own runs in that of its weights.

    Args:
        coords: What ``relative_coords`` returned.
        mlp: Linear(axes, 512), ReLU, Linear(512, heads, no bias).

    Shapes:
        (n, axes) -> (heads, n)
    """
    dtype, (first, _, last) = coords.dtype, mlp
    if is_plain(first) and is_plain(last):
        hidden = F.linear(coords, first.weight.to(dtype), first.bias.to(dtype)).relu()
        bias = F.linear(hidden, last.weight.to(dtype))
    else:
        weight = next(mlp.parameters(), coords)
        bias = mlp(coords.to(weight.dtype)).to(dtype)
    return _BIAS_RANGE * torch.sigmoid(bias.t())


@fx_leaf
def coords_of(
    grid: WindowGrid,
    *,
    pretrained_window_size: Size,
    kind: Literal['log_cpb', 'linear_cpb'],
    like: Tensor,
) -> Tensor:
    """Return the ``relative_coords`` of a grid's window, at least in float32.

    Args:
        like: A tensor of the bias network, whose device and type are taken.
    """
    return relative_coords(
        grid.window,
        pretrained_window_size=pretrained_window_size,
        kind=kind,
        device=like.device,
        dtype=computing_dtype(like),
    )


def resized_table(table: Tensor, *, source: Size, target: Size) -> Tensor:
    """Fit a learnt table (Swin V1) to another window by bicubic interpolation.

    Shapes:
        ((2Mh - 1) * (2Mw - 1) of source, heads) -> (heads, (2Mh - 1) * (2Mw - 1) of target)
    """
    if source == target:
        return table.t()
    grid = table.t().unflatten(1, (2 * source[0] - 1, 2 * source[1] - 1))[None]
    size = (2 * target[0] - 1, 2 * target[1] - 1)
    return F.interpolate(grid, size=size, mode='bicubic', align_corners=False)[0].flatten(1)


def central_table(table: Tensor, *, window: Size, clipped: Size) -> Tensor:
    """Keep the offsets that a smaller window holds.

    Shapes:
        (heads, (2Mh - 1) * (2Mw - 1) of window) -> the same of clipped
    """
    if clipped == window:
        return table
    grid = table.unflatten(1, (2 * window[0] - 1, 2 * window[1] - 1))
    dh, dw = (full - part for full, part in zip(window, clipped, strict=True))
    return grid[:, dh : grid.shape[1] - dh, dw : grid.shape[2] - dw].flatten(1)


@fx_leaf
def fitted_table(grid: WindowGrid, *, learnt: Tensor, source: Size) -> Tensor:
    """Fit a learnt table to a grid's window: interpolated, then clipped; at least in float32.

    Args:
        learnt: ((2Mh - 1) * (2Mw - 1), heads) of the window ``source``.
    """
    table = learnt.to(computing_dtype(learnt))
    table = resized_table(table, source=source, target=grid.nominal_window)
    return central_table(table, window=grid.nominal_window, clipped=grid.window)


def bias_of_query(table: Tensor, *, window: Size, query: Size) -> Tensor:
    """Return what one token of a window adds to the logits of its keys: a row of ``pairwise_bias``.

    Args:
        query: Row and column of the token in the window.

    Shapes:
        (heads, (2Mh - 1) * (2Mw - 1)) -> (heads, N)
    """
    seen = table.unflatten(1, [2 * side - 1 for side in window])
    for axis, (side, at) in enumerate(zip(window, query, strict=True), start=1):
        seen = seen.narrow(axis, at, side).flip(axis)
    return seen.flatten(1)


def reversed_pairs(table: Tensor, *, window: Size) -> Tensor:
    """Spread a bias table over all pairs of tokens of a window, the queries in reverse order.

    A strided view: no integer index of N x N is needed, and ``reshape`` makes one copy.

    Shapes:
        (heads, (2Mh - 1) * (2Mw - 1)) -> (heads, Mh, Mw, Mh, Mw), query by key; a video's window
        has 3 sides
    """
    # With all axes reversed, the offsets that a query sees are a window of the table: its
    # keys in order. unfold gives all such windows; the first query sees the last of them.
    seen = table.flip(1).unflatten(1, [2 * side - 1 for side in window])
    for axis, side in enumerate(window, start=1):
        seen = seen.unfold(axis, side, 1)
    return seen


def reversed_pairs_backward(d_pairs: Tensor, *, window: Size) -> Tensor:
    """Return the gradient of the table from that of ``reversed_pairs``.

    Shapes:
        (heads, N, N) -> (heads, (2Mh - 1) * (2Mw - 1))
    """
    num_axes = len(window)
    grad = d_pairs.unflatten(2, window).unflatten(1, window)
    for axis in range(num_axes, 0, -1):
        # The axis of places of the window, and the last one, of the tokens in it, become one.
        sizes = [*grad.shape[:axis], 2 * window[axis - 1] - 1, *grad.shape[axis + 1 : -1]]
        grad = unfold_backward(grad, sizes, axis, window[axis - 1], 1)
    return grad.flatten(1).flip(1)


def pairwise_bias(table: Tensor, *, window: Size) -> Tensor:
    """Spread a bias table over all pairs of tokens of a window.

    Shapes:
        (heads, (2Mh - 1) * (2Mw - 1)) -> (heads, N, N), query by key; a video's window has 3 sides
    """
    num_tokens = math.prod(window)
    pairs = reversed_pairs(table, window=window).flip(tuple(range(1, 1 + len(window))))
    return pairs.reshape(table.shape[0], num_tokens, num_tokens)


def pairwise_bias_backward(d_pairs: Tensor, *, window: Size) -> Tensor:
    """Return the gradient of the table from that of ``pairwise_bias``.

    Shapes:
        (heads, N, N) -> (heads, (2Mh - 1) * (2Mw - 1))
    """
    return reversed_pairs_backward(d_pairs.flip(1), window=window)
