"""Chunked window attention: groups of windows in turn, with an explicit backward pass.

Only the logits of one group exist at any time: backward computes them again from the map and the
bias table (paper section 3.5). That bounds the memory on any device; on a CPU, where a group stays
in the cache, it is also the fastest way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..position_bias import pairwise_bias
from ..torch_private import softmax_backward
from ..window_partition import WindowGrid, window_tokens
from .eager import attend
from .mask import attention_mask
from .prologue import (
    bounded_scale,
    computing_dtype,
    merge_heads,
    normalize_,
    normalize_backward_,
    split_heads,
)

# Logits of a group, if one window does not have more: 4 MB of float32 for the cache of a CPU,
# 64 MB to keep other devices busy.
_MAX_LOGITS_CPU, _MAX_LOGITS = 2**20, 2**24


def grouped(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run as a backend, see ``eager``."""
    dtype = computing_dtype(qkv)
    operands = (qkv, bounded_scale(logit_scale, dtype=dtype), bias.to(dtype))
    if torch.is_grad_enabled() and any(x.requires_grad for x in operands):
        return _Grouped.apply(*operands, grid)
    return _attend(*operands, grid)


def _groups(qkv: Tensor, pairs: Tensor, grid: WindowGrid) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the token numbers (n, N) of each group and the bias (heads, N, N) of its windows."""
    budget = _MAX_LOGITS_CPU if qkv.device.type == 'cpu' else _MAX_LOGITS
    for row in grid.axis_runs(0):
        for column in grid.axis_runs(1):
            tokens = window_tokens(
                row, columns=column, grid=grid, batch=qkv.shape[0], device=qkv.device
            )
            mask = attention_mask(
                (row.origins, column.origins), device=pairs.device, dtype=pairs.dtype
            )
            bias = pairs if mask is None else pairs + mask
            for group in tokens.split(max(1, budget // pairs.numel())):
                yield group, bias


def _read(x: Tensor, tokens: Tensor, *, heads: int, parts: int, dtype: torch.dtype) -> Tensor:
    """Gather windows, with some token in place of padding: -> (parts, n, heads, N, d)."""
    rows = x.reshape(-1, x.shape[-1])
    rows = rows.index_select(0, tokens.flatten().clamp(max=len(rows) - 1))
    windows = split_heads(rows.unflatten(0, tokens.shape)[None], heads=heads, parts=parts)[:, 0]
    return windows.to(dtype, memory_format=torch.contiguous_format)


def _write(rows: Tensor, tokens: Tensor, x: Tensor) -> None:
    """Undo ``_read``; ``rows`` has a spare last one for padding."""
    x = merge_heads(x[:, None], window=tokens.shape[1:]).reshape(-1, rows.shape[1])
    rows.index_copy_(0, tokens.flatten(), x.to(rows.dtype))


def _read_normalised(qkv: Tensor, tokens: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gather queries, keys and values, and normalise the first two; see ``normalize_``."""
    x = _read(qkv, tokens, heads=len(scale), parts=3, dtype=scale.dtype)
    return x, normalize_(x[:2], scale=scale)


def _attend(qkv: Tensor, scale: Tensor, table: Tensor, grid: WindowGrid) -> Tensor:
    b, h, w, channels = qkv.shape
    out = qkv.new_empty(b * h * w + 1, channels // 3)
    for tokens, bias in _groups(qkv, pairwise_bias(table, window=grid.window), grid):
        (q, k, v), _ = _read_normalised(qkv, tokens, scale)
        group = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)
        _write(out, tokens, group[None])
    return out[:-1].reshape(b, h, w, channels // 3)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, scale: Tensor, table: Tensor, grid: WindowGrid) -> Tensor:
        ctx.save_for_backward(qkv, scale, table)
        ctx.grid = grid
        return _attend(qkv, scale, table, grid)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv, scale, table = operands = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if not torch.is_grad_enabled():
            return *_backward(qkv, scale, table, ctx.grid, d_out=d_out, needs_table=needed[2]), None
        # A gradient of this gradient is wanted too: autograd knows that of the definition.
        wanted = [x for x, is_needed in zip(operands, needed, strict=True) if is_needed]
        out = attend(qkv, ctx.grid, scale, table)
        found = iter(torch.autograd.grad(out, wanted, d_out, create_graph=True))
        return *(next(found) if is_needed else None for is_needed in needed), None


def _backward(
    qkv: Tensor, scale: Tensor, table: Tensor, grid: WindowGrid, *, d_out: Tensor, needs_table: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    with torch.enable_grad():
        table = table.detach().requires_grad_()
        pairs = pairwise_bias(table, window=grid.window)
    num_tokens = d_out[..., 0].numel()
    d_rows = qkv.new_empty(num_tokens + 1, qkv.shape[-1])
    d_scale, d_pairs = torch.zeros_like(scale), torch.zeros_like(pairs)
    for tokens, bias in _groups(qkv, pairs.detach(), grid):
        x, factor = _read_normalised(qkv, tokens, scale)
        d_group = _read(d_out, tokens, heads=len(scale), parts=1, dtype=scale.dtype)[0]
        # What padding attends to was cropped.
        d_group.masked_fill_((tokens == num_tokens)[:, None, :, None], 0)
        d_x, d_logits = _gradients(x, d_group, bias)
        d_pairs += d_logits.sum(0)
        d_scale += normalize_backward_(d_x[:2], normalized=x[:2], factor=factor, scale=scale)
        _write(d_rows, tokens, d_x)
    d_table = torch.autograd.grad(pairs, table, d_pairs)[0] if needs_table else None
    return d_rows[:-1].reshape(qkv.shape), d_scale, d_table


def _gradients(x: Tensor, d_out: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the factors (3, n, heads, N, d), and of the logits."""
    n, heads = d_out.shape[:2]
    q, k, v = x.flatten(1, 2)
    d_out = d_out.flatten(0, 1)
    logits = (q @ k.mT).unflatten(0, (n, heads)).add_(bias)
    p = torch.softmax(logits, dim=-1).flatten(0, 1)
    d_logits = softmax_backward(d_out @ v.mT, p, -1, p.dtype)
    d_x = torch.stack((d_logits @ k, d_logits.mT @ q, p.mT @ d_out))
    return d_x.unflatten(1, (n, heads)), d_logits.unflatten(0, (n, heads))
