"""Window attention by torch's ``flex_attention``: bias and masks are looked up, never stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from ..tensor_cache import CONSTANTS
from ..window_partition import WindowGrid, from_windows, to_windows
from .mask import SEAM_PENALTY
from .prologue import bounded_scale, computing_dtype, cosine_operands, merge_heads

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
    return torch.compile(flex_attention)


def _look_up(
    grid: WindowGrid, table: Tensor
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the score_mod: bias of the offset, penalty across a seam, -inf for padding."""
    (mh, mw), (nh, nw) = grid.window, grid.num_windows
    row = 2 * mw - 1
    centre = (mh - 1) * row + mw - 1

    def segments() -> Tensor:
        ids = grid.segment_ids().int().reshape(nh, mh, nw, mw).permute(0, 2, 1, 3)
        return ids.reshape(nh * nw, mh * mw).to(table.device)

    is_masked = any(grid.shift) or grid.padded_size != grid.size
    ids = CONSTANTS.get(('segments', grid, table.device), segments) if is_masked else None

    def score_mod(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        offset = (query // mw - key // mw) * row + query % mw - key % mw + centre
        score = score + table[h, offset]
        if ids is None:
            return score
        query_id, key_id = ids[b % (nh * nw), query], ids[b % (nh * nw), key]
        score = torch.where(query_id != key_id, score + SEAM_PENALTY, score)
        # Padded queries see padded keys, else their softmax would be NaN; they are cropped.
        return torch.where((key_id == -1) & (query_id != -1), -torch.inf, score)

    return score_mod


def looked_up(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run ``flex_attention`` as a backend; the caller has asked ``flex_gap``."""
    dtype = computing_dtype(qkv)
    scale = bounded_scale(logit_scale, dtype=dtype)
    q, k, v = cosine_operands(to_windows(qkv, grid=grid), scale=scale)
    counts = q.shape[:3]
    q, k, v = (x.flatten(0, 2) for x in (q, k, v))
    # On a CPU the definition itself runs: fast enough to test with, and it needs no compiler.
    is_fused = qkv.is_cuda and not torch.compiler.is_compiling()
    attend: Callable[..., Tensor] = _compiled() if is_fused else flex_attention  # type: ignore[assignment]
    out = attend(q, k, v, score_mod=_look_up(grid, bias.to(dtype)), scale=1.0).to(qkv.dtype)
    out = merge_heads(out.unflatten(0, counts)[None], window=grid.window)
    return from_windows(out, grid=grid)
