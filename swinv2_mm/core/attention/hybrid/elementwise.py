"""The operators around the attention of torch: by a Triton kernel, or as they are defined.

Operators of torch without a gradient of their own: ``operator`` calls them below autograd. They
exist so that tools which follow operations (fake tensors, memory planning) see one node for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Sequence  # noqa: UP035  the one that torch 2.6 to 2.15 know

import torch
from torch import Tensor

from ...position_bias import computing_dtype
from ...window_partition import WindowGrid
from ..failures import run_or
from ..triton.launch import device_gap
from . import definition
from .definition import aligned, grid_of_map, operand_dtype

# Tokens of a tile, channels of a tile of rows, sides of a tile of the bias.
_TOKENS, _CHANNELS, _BIAS_ROWS, _BIAS_COLUMNS = 64, 64, 16, 128
# Size of a tile of the bias's gradient: queries in a row of the window, and offsets.
_QUERIES, _OFFSETS = 16, 64
# Programs per multiprocessor among which the windows of the bias's gradient are shared.
_PROGRAMS_PER_SM = 8


def may_launch(x: Tensor) -> bool:
    """Whether Triton's kernels run on a tensor."""
    return x.dtype != torch.float64 and device_gap(x.device) is None


def _run(
    defined: Callable[..., Any], launch: Callable[[], Any], like: Tensor, *arguments: Any
) -> Any:
    """Launch a kernel, or compute the definition where it cannot run or has failed once."""
    if not may_launch(like):
        return defined(*arguments)

    def launched() -> Any:
        with torch.cuda.device_of(like):
            return launch()

    return run_or(defined.__name__, launched, lambda: defined(*arguments), of='hybrid')


def _sizes(grid: WindowGrid, *, batch: int) -> tuple[int, ...]:
    """Return the geometry as arguments of the kernels."""
    first = (grid.axis_runs(axis)[0].stop for axis in (0, 1))
    return (batch, *grid.size, *grid.num_windows, *first, *grid.window, *grid.shift)


def _blocks(length: int, block: int) -> int:
    return (length + block - 1) // block


def _num_windows(x: Tensor, geometry: Sequence[int]) -> int:
    """Windows of a batch of maps (B, H, W, C), whose sizes may be open."""
    (b, h, w), (mh, mw) = x.shape[:3], geometry[:2]
    return b * ((h + mh - 1) // mh) * ((w + mw - 1) // mw)


def windows_shape(
    x: Tensor, geometry: Sequence[int], *, heads: int, head_dim: int
) -> tuple[int, ...]:
    """Return the shape of the rows of all windows: (windows, Np, heads, d)."""
    return (_num_windows(x, geometry), aligned(geometry[0] * geometry[1]), heads, head_dim)


def _operands_shape(qkv: Tensor, logit_scale: Tensor, geometry: Sequence[int]) -> tuple[int, ...]:
    heads = logit_scale.shape[0]
    return 3, *windows_shape(qkv, geometry, heads=heads, head_dim=qkv.shape[-1] // (3 * heads))


def _tile_width(head_dim: int) -> int:
    return 1 << max(head_dim - 1, 1).bit_length()


@torch.library.custom_op('swinv2_mm::window_operands', mutates_args=())
def window_operands(
    qkv: Tensor, logit_scale: Tensor, largest: Tensor, geometry: Sequence[int]
) -> Tensor:
    """See ``definition.window_operands``; ``geometry`` is ``[Mh, Mw, shift, shift]``."""
    grid = grid_of_map(qkv, geometry)

    def launch() -> Tensor:
        from .kernels import operands_kernel

        shape = _operands_shape(qkv, logit_scale, geometry)
        out = qkv.new_empty(shape, dtype=operand_dtype(qkv))
        _, windows, padded, heads, head_dim = shape
        operands_kernel[(windows * _blocks(padded, _TOKENS) * heads,)](
            qkv, logit_scale, largest, out, *_sizes(grid, batch=len(qkv)), padded, heads,
            D=head_dim, DP=_tile_width(head_dim), BT=_TOKENS,
        )  # fmt: skip
        return out

    defined = definition.window_operands
    return _run(defined, launch, qkv, qkv, logit_scale, largest, grid)


@window_operands.register_fake
def _(qkv: Tensor, logit_scale: Tensor, largest: Tensor, geometry: Sequence[int]) -> Tensor:
    shape = _operands_shape(qkv, logit_scale, geometry)
    return qkv.new_empty(shape, dtype=operand_dtype(qkv))


@torch.library.custom_op('swinv2_mm::window_operands_backward', mutates_args=())
def window_operands_backward(
    d_q: Tensor,
    d_k: Tensor,
    d_v: Tensor,
    qkv: Tensor,
    logit_scale: Tensor,
    largest: Tensor,
    largest_d_out: Tensor,
    geometry: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """See ``definition.window_operands_backward``."""
    grid = grid_of_map(qkv, geometry)
    operands = (d_q, d_k, d_v, qkv, logit_scale, largest, largest_d_out)

    def launch() -> tuple[Tensor, Tensor]:
        from .kernels import operands_backward_kernel

        windows, padded, heads, head_dim = d_q.shape
        d_qkv = torch.empty_like(qkv)
        d_scale = logit_scale.new_empty(windows * _blocks(padded, _TOKENS), heads)
        operands_backward_kernel[(d_scale.numel(),)](
            *operands, d_qkv, d_scale, *_sizes(grid, batch=len(qkv)), padded, heads,
            D=head_dim, DP=_tile_width(head_dim), BT=_TOKENS, WIDE=qkv.device.type == 'cpu',
        )  # fmt: skip
        return d_qkv, d_scale.sum(0)

    return _run(definition.window_operands_backward, launch, qkv, *operands, grid)


@window_operands_backward.register_fake
def _(
    d_q: Tensor, d_k: Tensor, d_v: Tensor, qkv: Tensor, logit_scale: Tensor, *_: object
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(qkv), torch.empty_like(logit_scale)


def _move_rows(
    x: Tensor, windows: Tensor, largest: Tensor, grid: WindowGrid, *, to_map: bool
) -> None:
    from .kernels import rows_kernel

    num_windows, padded, heads, head_dim = windows.shape
    programs = num_windows * _blocks(padded, _TOKENS) * _blocks(x.shape[-1], _CHANNELS)
    rows_kernel[(programs,)](
        x, windows, largest, *_sizes(grid, batch=len(x)), padded, heads,
        D=head_dim, TO_MAP=to_map, BT=_TOKENS, BC=_CHANNELS, WIDE=x.device.type == 'cpu',
    )  # fmt: skip


@torch.library.custom_op('swinv2_mm::map_to_windows', mutates_args=())
def map_to_windows(x: Tensor, largest: Tensor, heads: int, geometry: Sequence[int]) -> Tensor:
    """See ``definition.map_to_windows``."""
    grid = grid_of_map(x, geometry)

    def launch() -> Tensor:
        shape = windows_shape(x, geometry, heads=heads, head_dim=x.shape[-1] // heads)
        out = x.new_empty(shape, dtype=operand_dtype(x))
        _move_rows(x, out, largest, grid, to_map=False)
        return out

    return _run(definition.map_to_windows, launch, x, x, largest, heads, grid)


@map_to_windows.register_fake
def _(x: Tensor, largest: Tensor, heads: int, geometry: Sequence[int]) -> Tensor:
    shape = windows_shape(x, geometry, heads=heads, head_dim=x.shape[-1] // heads)
    return x.new_empty(shape, dtype=operand_dtype(x))


@torch.library.custom_op('swinv2_mm::windows_to_map', mutates_args=())
def windows_to_map(
    x: Tensor, largest: Tensor, size: Sequence[int], dtype: torch.dtype, geometry: Sequence[int]
) -> Tensor:
    """See ``definition.windows_to_map``; ``size`` is (B, H, W)."""
    out = x.new_empty(*size, x.shape[2] * x.shape[3], dtype=dtype)
    grid = grid_of_map(out, geometry)

    def launch() -> Tensor:
        _move_rows(out, x, largest, grid, to_map=True)
        return out

    arguments = (x, largest, tuple(size), dtype, grid)
    return _run(definition.windows_to_map, launch, x, *arguments)


@windows_to_map.register_fake
def _(
    x: Tensor, largest: Tensor, size: Sequence[int], dtype: torch.dtype, geometry: Sequence[int]
) -> Tensor:
    return x.new_empty(*size, x.shape[2] * x.shape[3], dtype=dtype)


@torch.library.custom_op('swinv2_mm::window_bias', mutates_args=())
def window_bias(
    table: Tensor,
    first: int,
    last: int,
    dtype: torch.dtype,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """See ``definition.window_bias``; ``size`` is (H, W)."""
    grid = _grid(size, geometry)

    def launch() -> Tensor:
        from .kernels import bias_kernel

        heads, padded = len(table), aligned(math.prod(grid.window))
        out = table.new_empty(last - first, heads, padded, padded, dtype=dtype)
        tiles = _blocks(padded, _BIAS_ROWS) * _blocks(padded, _BIAS_COLUMNS)
        bias_kernel[((last - first) * heads * tiles,)](
            table, out, *table.stride(), *_sizes(grid, batch=1), padded // 8, heads, first,
            len(grid.axis_runs(1)), BI=_BIAS_ROWS, BJ=_BIAS_COLUMNS,
        )  # fmt: skip
        return out

    return _run(definition.window_bias, launch, table, table, first, last, dtype, grid)


@window_bias.register_fake
def _(
    table: Tensor,
    first: int,
    last: int,
    dtype: torch.dtype,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    padded = aligned(geometry[0] * geometry[1])
    return table.new_empty(last - first, table.shape[0], padded, padded, dtype=dtype)


def _grid(size: Sequence[int], geometry: Sequence[int]) -> WindowGrid:
    window, shift = tuple(geometry[:2]), tuple(geometry[2:])
    return WindowGrid(tuple(size), window, shift, window)


@torch.library.custom_op('swinv2_mm::window_bias_backward', mutates_args=())
def window_bias_backward(
    d_bias: Tensor, largest: Tensor, largest_d_out: Tensor, geometry: Sequence[int]
) -> Tensor:
    """See ``definition.window_bias_backward``."""
    grid = _grid(geometry[:2], geometry)

    dtype = computing_dtype(d_bias)

    def launch() -> Tensor:
        from .kernels import bias_backward_kernel

        num_windows, heads = d_bias.shape[:2]
        mh, mw = grid.window
        programs = heads * (2 * mh - 1) * _blocks(2 * mw - 1, _OFFSETS)
        wanted = _PROGRAMS_PER_SM
        if d_bias.is_cuda:
            wanted *= torch.cuda.get_device_properties(d_bias.device).multi_processor_count
        share = _blocks(num_windows, max(1, wanted // programs))
        parts = _blocks(num_windows, share)
        out = d_bias.new_empty(parts, heads, (2 * mh - 1) * (2 * mw - 1), dtype=dtype)
        bias_backward_kernel[(parts * programs,)](
            d_bias, largest, largest_d_out, out, *d_bias.stride()[:3],
            num_windows, mh, mw, heads, share, BI=_QUERIES, BX=_OFFSETS,
        )  # fmt: skip
        return out[0] if parts == 1 else out.sum(0)

    return _run(
        definition.window_bias_backward, launch, d_bias, d_bias, largest, largest_d_out, grid
    )


@window_bias_backward.register_fake
def _(d_bias: Tensor, largest: Tensor, largest_d_out: Tensor, geometry: Sequence[int]) -> Tensor:
    offsets = (2 * geometry[0] - 1) * (2 * geometry[1] - 1)
    dtype = computing_dtype(d_bias)
    return d_bias.new_empty(d_bias.shape[1], offsets, dtype=dtype)
