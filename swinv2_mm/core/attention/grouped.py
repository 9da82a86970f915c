"""Chunked window attention: groups of windows in turn, with an explicit backward pass.

Only the logits of one group exist at any time, so that on a CPU it stays in the cache. ``grouped``
computes them again in backward, from the map and the bias table (paper section 3.5), which bounds
the memory on any device; ``kept`` saves the softmax instead, which small windows are faster with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..position_bias import computing_dtype, pairwise_bias, pairwise_bias_backward
from ..tensor_cache import TOKENS
from ..torch_private import softmax_backward
from ..window_partition import WindowGrid, window_tokens
from .eager import attend
from .mask import attention_mask
from .prologue import (
    bounded_scale,
    normalize_,
    normalize_backward_,
    without_autocast,
)

# Logits of a group, if one window does not have more: 4 MB of float32 for the cache of a CPU,
# 64 MB to keep other devices busy.
_MAX_LOGITS_CPU, _MAX_LOGITS = 2**20, 2**24
# Windows of up to this many tokens are attended by two batched products and a softmax in place in
# an inference on a CPU: SwinV2-T at 256 px, window 8 takes 0.94 (AVX-512) and 0.98 (AVX2) of the
# time that it takes with SDPA; at window 12 they are equal, at 16 SDPA is ahead.
_MAX_TOKENS_BY_PRODUCTS = 64


class _Group(NamedTuple):
    """Operands of the windows of a group, and their softmax.

    Attributes:
        x: Queries, keys and values (3, n, heads, N, d), the first two normalised.
        factor: What these were multiplied by (2, n, heads, N, 1).
        p: The softmax (n * heads, N, N).
    """

    x: Tensor
    factor: Tensor
    p: Tensor


def grouped(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run as a backend, see ``eager``; backward computes the logits again."""
    return _run(qkv, grid, logit_scale, bias, keeps=False)


def kept(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run as a backend, see ``eager``; the softmax is saved for backward."""
    return _run(qkv, grid, logit_scale, bias, keeps=True)


def _run(
    qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor, *, keeps: bool
) -> Tensor:
    dtype = computing_dtype(qkv)
    operands = (qkv, bounded_scale(logit_scale, dtype=dtype), bias.to(dtype))
    if torch.is_grad_enabled() and any(x.requires_grad for x in operands):
        return _Grouped.apply(*operands, grid, keeps)
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


def _head_rows(tokens: Tensor, *, heads: int, parts: int) -> Tensor:
    """Number the heads of tokens in a map: (n, N) -> (parts * n * heads * N,)."""

    def build() -> Tensor:
        return torch.arange(parts * heads, device=tokens.device).view(parts, 1, heads, 1)

    part = TOKENS.get(('heads', heads, parts, tokens.device), build)
    return torch.add(part, tokens[None, :, None], alpha=parts * heads).flatten()


def _read(x: Tensor, tokens: Tensor, *, heads: int, parts: int, dtype: torch.dtype) -> Tensor:
    """Gather windows, with some token in place of padding: -> (parts, n, heads, N, d)."""
    num_tokens = x[..., 0].numel()
    rows = _head_rows(tokens.clamp(max=num_tokens - 1), heads=heads, parts=parts)
    head_dim = x.shape[-1] // (parts * heads)
    found = x.reshape(num_tokens * parts * heads, head_dim).index_select(0, rows)
    return found.view(parts, len(tokens), heads, tokens.shape[1], head_dim).to(dtype)


def _read_normalised(qkv: Tensor, tokens: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gather queries, keys and values, and normalise the first two; see ``normalize_``."""
    x = _read(qkv, tokens, heads=len(scale), parts=3, dtype=scale.dtype)
    return x, normalize_(x[:2], scale=scale)


def _attend(
    qkv: Tensor, scale: Tensor, table: Tensor, grid: WindowGrid, *, keep: list[_Group] | None = None
) -> Tensor:
    """Attend group by group, and append what backward needs to ``keep``."""
    b, h, w, channels = qkv.shape
    by_products = (
        qkv.device.type == 'cpu'
        and math.prod(grid.window) <= _MAX_TOKENS_BY_PRODUCTS
        and scale.dtype in (torch.float32, torch.float64)  # SDPA sums half precision in float32
    )
    # The last row takes what padding attends to.
    out = qkv.new_empty(b * h * w + 1, channels // 3)
    for tokens, bias in _groups(qkv, pairwise_bias(table, window=grid.window), grid):
        x, factor = _read_normalised(qkv, tokens, scale)
        q, k, v = x
        if keep is None and not by_products:
            group = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)
        else:
            p = _softmax(q, k, bias)
            if keep is not None:
                keep.append(_Group(x, factor, p))
            group = (p @ v.flatten(0, 1)).view_as(v)
        rows = group.transpose(1, 2).reshape(-1, channels // 3)
        out.index_copy_(0, tokens.flatten(), rows.to(out.dtype))
    return out[:-1].reshape(b, h, w, channels // 3)


def _softmax(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Return the weights of all keys, in the memory of the logits: -> (n * heads, N, N)."""
    logits = q.flatten(0, 1) @ k.flatten(0, 1).mT
    logits.view(*q.shape[:2], *logits.shape[1:]).add_(bias)
    return torch.softmax(logits, dim=-1, out=logits)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, scale: Tensor, table: Tensor, grid: WindowGrid, keeps: bool
    ) -> Tensor:
        keep: list[_Group] | None = [] if keeps else None
        out = _attend(qkv, scale, table, grid, keep=keep)
        ctx.save_for_backward(qkv, scale, table, *(x for group in keep or () for x in group))
        ctx.grid = grid
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        qkv, scale, table, *saved = ctx.saved_tensors
        operands, needed = (qkv, scale, table), ctx.needs_input_grad[:3]
        with without_autocast(qkv.device):
            if not torch.is_grad_enabled():
                groups = [_Group(*saved[i : i + 3]) for i in range(0, len(saved), 3)]
                grads = _backward(
                    *operands, ctx.grid, d_out=d_out, needs_table=needed[2], groups=groups
                )
                return *grads, None, None
            # A gradient of this gradient is wanted too: autograd knows that of the definition.
            wanted = [x for x, is_needed in zip(operands, needed, strict=True) if is_needed]
            out = attend(qkv, ctx.grid, scale, table)
            found = iter(torch.autograd.grad(out, wanted, d_out, create_graph=True))
        return *(next(found) if is_needed else None for is_needed in needed), None, None


def _backward(
    qkv: Tensor,
    scale: Tensor,
    table: Tensor,
    grid: WindowGrid,
    *,
    d_out: Tensor,
    needs_table: bool,
    groups: list[_Group],
) -> tuple[Tensor, Tensor, Tensor | None]:
    pairs = pairwise_bias(table, window=grid.window)
    num_tokens, heads = d_out[..., 0].numel(), len(scale)
    d_rows = qkv.new_empty(num_tokens + 1, qkv.shape[-1])
    d_scale, d_pairs = torch.zeros_like(scale), torch.zeros_like(pairs)
    kept_groups = iter(groups)
    for tokens, bias in _groups(qkv, pairs, grid):
        group = next(kept_groups, None)
        if group is None:
            x, factor = _read_normalised(qkv, tokens, scale)
            group = _Group(x, factor, _softmax(x[0], x[1], bias))
        d_group = _read(d_out, tokens, heads=heads, parts=1, dtype=scale.dtype)[0]
        # What padding attends to was cropped.
        if any(p != n for p, n in zip(grid.padded_size, grid.size, strict=True)):
            d_group.masked_fill_((tokens == num_tokens)[:, None, :, None], 0)
        d_x, d_logits = _gradients(group, d_group)
        d_pairs += d_logits[0] if len(d_logits) == 1 else d_logits.sum(0)
        d_scale += normalize_backward_(
            d_x[:2], normalized=group.x[:2], factor=group.factor, scale=scale
        )
        rows = _head_rows(tokens, heads=heads, parts=3)
        d_rows.view(-1, d_x.shape[-1]).index_copy_(
            0, rows, d_x.view(len(rows), d_x.shape[-1]).to(d_rows.dtype)
        )
    d_table = pairwise_bias_backward(d_pairs, window=grid.window) if needs_table else None
    return d_rows[:-1].reshape(qkv.shape), d_scale, d_table


def _gradients(group: _Group, d_out: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the factors (3, n, heads, N, d), and of the logits."""
    n, heads = d_out.shape[:2]
    d_out = d_out.flatten(0, 1)
    q, k, v = group.x.flatten(1, 2)
    d_logits = d_out @ v.mT
    softmax_backward(d_logits, group.p, -1, group.p.dtype, grad_input=d_logits)
    d_x = torch.empty_like(group.x)
    d_q, d_k, d_v = d_x.flatten(1, 2)
    torch.bmm(d_logits, k, out=d_q)
    torch.bmm(d_logits.mT, q, out=d_k)
    torch.bmm(group.p.mT, d_out, out=d_v)
    return d_x, d_logits.unflatten(0, (n, heads))
