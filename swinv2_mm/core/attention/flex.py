"""Window attention by torch's ``flex_attention``: bias and masks are looked up, never stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from ..position_bias import computing_dtype
from ..tensor_cache import CONSTANTS
from ..window_partition import WindowGrid, from_windows, to_windows
from .mask import SEAM_PENALTY
from .prologue import bounded_scale, cosine_operands, merge_heads

_ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# torch's kernels take heads of these sizes.
_HEAD_DIMS = (16, 32, 64, 128)


def flex_gap(qkv: Tensor, *, head_dim: int, needs_grad: bool) -> str | None:
    """Say why ``flex_attention`` cannot run; ``None`` where it can."""
    device = qkv.device.type
    if device == 'cpu':
        return 'flex_attention has no backward on CPU' if needs_grad else None
    if device != 'cuda':
        return f'flex_attention does not run on {device}'
    if qkv.dtype == torch.float64:
        return 'flex_attention does not take float64 on CUDA'
    return None if head_dim in _HEAD_DIMS else f'flex_attention takes heads of {_HEAD_DIMS}'


@lru_cache
def _compiled() -> Callable[..., Tensor]:
    # Windows and maps of all sizes share a kernel: what differs are tensors.
    return torch.compile(flex_attention, dynamic=True)


def _look_up(grid: WindowGrid, table: Tensor, *, images: int) -> _ScoreMod:
    """Return the score_mod: bias of the offset, penalty across a seam, -inf for padding.

    Its batch is (images, windows, heads). It reads tensors only: numbers would be compiled in.
    """
    (mh, mw), (nh, nw) = grid.window, grid.num_windows
    row, device = 2 * mw - 1, table.device

    def places() -> Tensor:
        of_key = (torch.arange(mh)[:, None] * row + torch.arange(mw)).flatten()
        return torch.stack((of_key + (mh - 1) * row + mw - 1, of_key)).to(device)

    def segments() -> Tensor:
        ids = grid.segment_ids().int().reshape(nh, mh, nw, mw).permute(0, 2, 1, 3)
        return ids.reshape(nh * nw, mh * mw).to(device)

    numbers = torch.arange(images * nh * nw * len(table), device=device)
    heads = numbers % len(table)
    of_query, of_key = CONSTANTS.get(('places', grid.window, device), places)

    def biased(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + table[heads[b], of_query[query] - of_key[key]]

    if not any(grid.shift) and grid.padded_size == grid.size:
        return biased
    windows = numbers // len(table) % (nh * nw)
    ids = CONSTANTS.get(('segments', grid, device), segments)
    penalty = CONSTANTS.get(('seam', device), lambda: torch.tensor([SEAM_PENALTY], device=device))

    def masked(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        score = score + table[heads[b], of_query[query] - of_key[key]]
        query_id, key_id = ids[windows[b], query], ids[windows[b], key]
        score = torch.where(query_id != key_id, score + penalty[0], score)
        # Padded queries see padded keys, else their softmax would be NaN; they are cropped.
        return torch.where((key_id == -1) & (query_id != -1), -torch.inf, score)

    return masked


def looked_up(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run ``flex_attention`` as a backend; the caller has asked ``flex_gap``."""
    dtype = computing_dtype(qkv)
    scale = bounded_scale(logit_scale, dtype=dtype)
    q, k, v = cosine_operands(to_windows(qkv, grid=grid), scale=scale)
    counts = q.shape[:4]
    # Torch compiles the number of heads in: each head is a batch of its own.
    q, k, v = (x.flatten(0, 3)[:, None] for x in (q, k, v))
    # On a CPU the definition itself runs: fast enough to test with, and it needs no compiler.
    is_fused = qkv.is_cuda and not torch.compiler.is_compiling()
    attend: Callable[..., Tensor] = _compiled() if is_fused else flex_attention  # type: ignore[assignment]
    score_mod = _look_up(grid, bias.to(dtype), images=len(qkv))
    out = attend(q, k, v, score_mod=score_mod, scale=1.0).to(qkv.dtype)
    out = merge_heads(out[:, 0].unflatten(0, counts)[None], window=grid.window)
    return from_windows(out, grid=grid)
