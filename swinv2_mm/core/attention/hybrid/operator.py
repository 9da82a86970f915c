"""``hybrid``: elementwise kernels around torch's attention, as one operator with its gradient.

One node for ``torch.compile`` and ``torch.export``. Nothing of N x N is kept for the backward pass;
the largest tensors of that shape are the bias of a window and a chunk of its gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Sequence  # noqa: UP035  the one that torch 2.6 to 2.15 know

import torch
from torch import Tensor

from ...position_bias import computing_dtype
from ...window_partition import WindowGrid
from ..eager import eager
from ..failures import gradients_or_defined
from ..prologue import without_autocast
from .core import attend, attend_backward, log_sums
from .definition import (
    ALIGNMENT,
    aligned,
    grid_of_map,
    num_windows_of,
    operand_dtype,
)
from .elementwise import (
    map_to_windows,
    window_bias,
    window_bias_backward,
    window_operands,
    window_operands_backward,
    windows_shape,
    windows_to_map,
)

# Most bytes of a tensor with windows or kinds of window x heads x N x N, if one has not more.
MAX_CHUNK_BYTES = 256 * 2**20
# Up to this many bytes the bias is written for each window, so that windows of all kinds are one
# batch: one launch that fills a GPU in place of up to nine that do not.
MAX_SPREAD_BYTES = 16 * 2**20


def hybrid_gap(qkv: Tensor, *, head_dim: int) -> str | None:
    """Say why ``hybrid`` cannot run; ``None`` where it can."""
    if qkv.device.type not in ('cuda', 'cpu'):
        return f'its attention does not run on {qkv.device.type}'
    if qkv.is_cuda and qkv.dtype == torch.float64:
        return 'its attention does not take float64 on CUDA'
    if qkv.is_cuda and head_dim % ALIGNMENT:
        return f'its attention takes heads of a multiple of {ALIGNMENT} channels'
    return None


def _masked_windows(
    table: Tensor, grid: WindowGrid, dtype: torch.dtype, *, batch: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Give the first of some windows, the one after the last, and their bias.

    Windows of one kind have one bias (heads, Np, Np); all windows, if they are not many, one each
    (windows, heads, Np, Np).
    """
    counts = num_windows_of(grid, batch=batch)
    sides = [*grid.window, *grid.shift]
    padded = aligned(grid.window[0] * grid.window[1])
    per_window = len(table) * padded**2 * dtype.itemsize
    if len(counts) > 1 and sum(counts) * per_window <= min(MAX_SPREAD_BYTES, MAX_CHUNK_BYTES):
        biases = window_bias(table, 0, len(counts), dtype, list(grid.size), sides)
        spread = (b.expand(n, -1, -1, -1) for b, n in zip(biases, counts, strict=True))
        yield 0, sum(counts), torch.cat(tuple(spread))
        return
    at_once = max(1, MAX_CHUNK_BYTES // per_window)
    start = 0
    for first in range(0, len(counts), at_once):
        last = min(first + at_once, len(counts))
        biases = window_bias(table, first, last, dtype, list(grid.size), sides)
        for bias, count in zip(biases, counts[first:last], strict=True):
            yield start, start + count, bias
            start += count


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@torch.library.custom_op('swinv2_mm::hybrid_attention', mutates_args=())
def hybrid_attention(
    qkv: Tensor, logit_scale: Tensor, table: Tensor, geometry: Sequence[int], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend within the windows of a contiguous map.

    Args:
        qkv: The map.
        logit_scale: Logarithm of the scales, at least float32.
        table: The bias table, of the type of ``logit_scale``.
        geometry: Mh, Mw and the shifts along both axes.
        keep: Whether what only the backward pass needs is returned.

    Shapes:
        qkv (B, H, W, 3C), logit_scale (heads,), table (heads, (2Mh - 1) * (2Mw - 1))
        -> (B, H, W, C), and for the backward pass: attention of the windows
        (windows, Np, heads, d), log-sum-exp of their queries, the largest value
    """
    return forward(qkv, logit_scale, table, geometry, keep)


def forward(
    qkv: Tensor, logit_scale: Tensor, table: Tensor, geometry: Sequence[int], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run ``hybrid_attention``."""
    grid = grid_of_map(qkv, geometry)
    largest = _largest(qkv[..., qkv.shape[-1] // 3 * 2 :])
    q, k, v = window_operands(qkv, logit_scale, largest, geometry)
    parts = [
        attend(q[start:stop], k[start:stop], v[start:stop], bias, keep=keep)
        for start, stop, bias in _masked_windows(table, grid, q.dtype, batch=len(qkv))
    ]
    windows = _joined([out for out, _ in parts])
    out = windows_to_map(windows, largest, list(qkv.shape[:3]), qkv.dtype, geometry)
    if not keep:
        return out, *_nothing(qkv), largest
    return out, windows, _joined([log_sum for _, log_sum in parts]), largest


def _largest(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, torch.inf)


def _nothing(qkv: Tensor) -> tuple[Tensor, Tensor]:
    dtype = operand_dtype(qkv)
    return qkv.new_empty(0, dtype=dtype), qkv.new_empty(0, dtype=computing_dtype(qkv))


@hybrid_attention.register_fake
def _(
    qkv: Tensor, logit_scale: Tensor, table: Tensor, geometry: Sequence[int], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    heads, channels = logit_scale.shape[0], qkv.shape[-1] // 3
    out, largest = qkv.new_empty(*qkv.shape[:3], channels), qkv.new_empty(())
    if not keep:
        return (out, *_nothing(qkv), largest)
    shape = windows_shape(qkv, geometry, heads=heads, head_dim=channels // heads)
    windows = qkv.new_empty(shape, dtype=operand_dtype(qkv))
    sums = windows.new_empty(shape[0], heads, log_sums(shape[1]), dtype=computing_dtype(qkv))
    return out, windows, sums, largest


@torch.library.custom_op('swinv2_mm::hybrid_attention_backward', mutates_args=())
def hybrid_attention_backward(
    d_out: Tensor,
    qkv: Tensor,
    logit_scale: Tensor,
    table: Tensor,
    windows: Tensor,
    log_sum: Tensor,
    largest: Tensor,
    geometry: Sequence[int],
    needs_table: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``hybrid_attention``, each of the shape and type of its operand.

    Args:
        needs_table: Without it the gradient of the table stays zero.
    """
    return backward(
        d_out, qkv, logit_scale, table, windows, log_sum, largest, geometry, needs_table
    )


def backward(
    d_out: Tensor,
    qkv: Tensor,
    logit_scale: Tensor,
    table: Tensor,
    windows: Tensor,
    log_sum: Tensor,
    largest: Tensor,
    geometry: Sequence[int],
    needs_table: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run ``hybrid_attention_backward``."""
    grid = grid_of_map(qkv, geometry)
    largest_d_out = _largest(d_out)
    d_windows = map_to_windows(d_out, largest_d_out, len(table), geometry)
    q, k, v = window_operands(qkv, logit_scale, largest, geometry)
    per_window = len(table) * aligned(grid.window[0] * grid.window[1]) ** 2 * q.itemsize
    chunk = max(1, MAX_CHUNK_BYTES // per_window)
    grads: list[tuple[Tensor, Tensor, Tensor]] = []
    d_table: Tensor | None = None
    for first, last, bias in _masked_windows(table, grid, q.dtype, batch=len(qkv)):
        step = chunk if needs_table else last - first
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            d_q, d_k, d_v, d_bias = attend_backward(
                d_windows[part], q[part], k[part], v[part], bias, windows[part], log_sum[part],
                needs_bias=needs_table,
            )  # fmt: skip
            grads.append((d_q, d_k, d_v))
            if d_bias is not None:
                of_chunk = window_bias_backward(d_bias, largest, largest_d_out, geometry)
                d_table = of_chunk if d_table is None else d_table.add_(of_chunk)
            del d_bias
    d_q, d_k, d_v = (_joined(list(parts)) for parts in zip(*grads, strict=True))
    d_qkv, d_scale = window_operands_backward(
        d_q, d_k, d_v, qkv, logit_scale, largest, largest_d_out, geometry
    )
    return d_qkv, d_scale, torch.zeros_like(table) if d_table is None else d_table.to(table.dtype)


@hybrid_attention_backward.register_fake
def _(
    d_out: Tensor, qkv: Tensor, logit_scale: Tensor, table: Tensor, *_: object
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in (qkv, logit_scale, table))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    qkv, logit_scale, table, ctx.geometry, _ = inputs
    ctx.save_for_backward(qkv, logit_scale, table, *output[1:])


def _backward(ctx: Any, d_out: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    qkv, logit_scale, table, *kept = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]

    def defined(qkv: Tensor, logit_scale: Tensor, table: Tensor) -> Tensor:
        return eager(qkv, grid_of_map(qkv, ctx.geometry), logit_scale, table)

    def launched() -> tuple[Tensor, ...]:
        operands = (d_out.contiguous(), qkv, logit_scale, table, *kept)
        return hybrid_attention_backward(*operands, ctx.geometry, needed[2])

    inputs = (qkv, logit_scale, table)
    with without_autocast(d_out.device):
        grads = gradients_or_defined('hybrid', launched, defined, inputs, needed, d_out)
    return *grads, None, None


hybrid_attention.register_autograd(_backward, setup_context=_setup_context)


def around_sdpa(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run as a backend, see ``eager``; the caller has asked ``hybrid_gap``."""
    dtype = computing_dtype(qkv)
    operands = (qkv.contiguous(), logit_scale.to(dtype).flatten(), bias.to(dtype))
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in operands)
    return hybrid_attention(*operands, [*grid.window, *grid.shift], keep)[0]
