"""Compute the attention weights of one token, for visualization; no backend returns them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..position_bias import bias_of_query, computing_dtype
from ..window_partition import Size, WindowGrid, to_windows
from .eager import attention_weights
from .mask import segment_mask
from .prologue import bounded_scale, cosine_operands


def token_weights(
    qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor, *, token: Size
) -> Tensor:
    """Return how one token weights the others (paper equation 2).

    Args:
        qkv: See ``eager``, as for ``grid``, ``logit_scale`` and ``bias``.
        token: Row and column of the token in the map.

    Shapes:
        qkv (B, H, W, 3C) -> (B, heads, H, W), NaN outside of the token's window
    """
    dtype, (mh, mw) = computing_dtype(qkv), grid.window
    # Along each axis: where the tokens of the map's windows come from, the window of the token,
    # and its place in there.
    sources = [s.unflatten(0, (-1, m)) for s, m in zip(grid.sources(), grid.window, strict=True)]
    (i, y), (j, x) = ((s == at).nonzero()[0].tolist() for s, at in zip(sources, token, strict=True))

    windows = to_windows(qkv, grid=grid)[:, i : i + 1, :, j : j + 1]
    q, k, _ = cosine_operands(windows, scale=bounded_scale(logit_scale, dtype=dtype))
    q, k = q[:, 0, 0, :, [y * mw + x]], k[:, 0, 0]
    added = bias_of_query(bias.to(dtype), window=grid.window, query=(y, x))
    ids = grid.segment_ids().unflatten(1, (-1, mw)).unflatten(0, (-1, mh))[i, :, j]
    mask = segment_mask(ids[y, x, None], key=ids.flatten(), dtype=dtype).to(qkv.device)
    weights = attention_weights(q, k, added[:, None] + mask)

    whole = weights.new_full((*weights.shape[:2], *grid.padded_size), torch.nan)
    rows, columns = sources[0][i].to(qkv.device), sources[1][j].to(qkv.device)
    whole[:, :, rows[:, None], columns] = weights.reshape(*weights.shape[:2], mh, mw)
    return whole[:, :, : grid.size[0], : grid.size[1]]
