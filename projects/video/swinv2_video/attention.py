"""Window attention on the maps of a video: windows with three sides.

Shape letters beside those of ``swinv2_mm.core.window_partition``:
    T tokens in time, Mt window side in time, nT windows in time, N = Mt * Mh * Mw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_mm.core.attention import Backend
from swinv2_mm.core.attention.eager import bounded_scale
from swinv2_mm.core.position_bias import pairwise_bias
from swinv2_mm.core.tensor_cache import CONSTANTS
from swinv2_mm.core.window_partition import WindowGrid, attention_mask

# Queries, keys, values (n, heads, N, d) and what is added to the logits (heads, N, N).
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def to_windows(x: Tensor, *, grid: WindowGrid) -> Tensor:
    """Pad a map at the end of every axis with zeros, shift it, and cut it into windows.

    Shapes:
        (B, T, H, W, C) -> (B, nT, Mt, nH, Mh, nW, Mw, C)
    """
    missing = [p - n for p, n in zip(grid.padded_size, grid.size, strict=True)]
    if any(missing):
        x = F.pad(x, [0, 0, *(side for m in reversed(missing) for side in (0, m))])
    if any(grid.shift):
        x = x.roll([-shift for shift in grid.shift], dims=(1, 2, 3))
    cuts = [n for pair in zip(grid.num_windows, grid.window, strict=True) for n in pair]
    return x.reshape(x.shape[0], *cuts, x.shape[-1])


def from_windows(x: Tensor, *, grid: WindowGrid) -> Tensor:
    """Undo ``to_windows``."""
    x = x.reshape(x.shape[0], *grid.padded_size, x.shape[-1])
    if any(grid.shift):
        x = x.roll(grid.shift, dims=(1, 2, 3))
    t, h, w = grid.size
    return x[:, :t, :h, :w]


def volume_mask(
    origins: tuple[tuple[int, ...], ...], *, device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """Return what is added to the logits of a window, by the rules of the 2-D model.

    A pair of tokens that a seam separates along any axis gets ``SEAM_PENALTY``, once; a padded key
    is never seen by a query that is real along that axis.

    Args:
        origins: Of the window's tokens along time, height and width (``AxisRun.origins``).

    Shapes:
        -> (N, N), query by key; ``None`` where nothing is added
    """
    if not any(map(any, origins)):
        return None

    def build() -> Tensor:
        sides = [len(tokens) for tokens in origins]
        mask = torch.zeros(sides * 2, device=device, dtype=dtype)
        for axis, tokens in enumerate(origins):
            part = attention_mask(tokens, columns=(0,), device=device, dtype=dtype)
            if part is not None:
                shape = [1] * 6
                shape[axis] = shape[axis + 3] = len(tokens)
                mask = torch.minimum(mask, part.view(shape))
        return mask.reshape(math.prod(sides), -1)

    return CONSTANTS.get(('volume mask', origins, device, dtype), build)


def _attend_windows(windows: Tensor, scale: Tensor, logits_bias: Tensor, kernel: Kernel) -> Tensor:
    """(B, nT, Mt, nH, Mh, nW, Mw, 3C) -> (B, nT, Mt, nH, Mh, nW, Mw, C)."""
    b, nt, mt, nh, mh, nw, mw, channels = windows.shape
    x = windows.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, mt * mh * mw, channels)
    x = x.unflatten(-1, (3, scale.shape[0], -1))
    q, k, v = x.permute(2, 0, 3, 1, 4).to(scale.dtype).unbind()
    out = kernel(F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1), v, logits_bias)
    out = out.transpose(1, 2).to(windows.dtype).reshape(b, nt, nh, nw, mt, mh, mw, -1)
    return out.permute(0, 1, 4, 2, 5, 3, 6, 7)


def _attend(
    qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor, *, kernel: Kernel
) -> Tensor:
    """A backend: attend within all windows, those that need the same mask at once.

    Shapes:
        qkv (B, T, H, W, 3C), logit_scale (heads, 1, 1),
        bias (heads, (2Mt - 1) * (2Mh - 1) * (2Mw - 1)) -> (B, T, H, W, C)
    """
    dtype = torch.promote_types(qkv.dtype, torch.float32)
    scale = bounded_scale(logit_scale, dtype=dtype)
    pairs = pairwise_bias(bias.to(dtype), window=grid.window)
    windows = to_windows(qkv, grid=grid)
    out = windows.new_empty(*windows.shape[:-1], qkv.shape[-1] // 3)
    for runs in product(*(grid.axis_runs(axis) for axis in range(3))):
        mask = volume_mask(tuple(run.origins for run in runs), device=qkv.device, dtype=dtype)
        t, h, w = (slice(run.start, run.stop) for run in runs)
        place = (slice(None), t, slice(None), h, slice(None), w)
        added = pairs if mask is None else pairs + mask
        out[place] = _attend_windows(windows[place], scale, added, kernel)
    return from_windows(out, grid=grid)


def _softmax_kernel(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) + added, dim=-1) @ v


def _sdpa_kernel(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added[None], scale=1.0)


VIDEO_BACKENDS: dict[str, Backend] = {
    'eager': partial(_attend, kernel=_softmax_kernel),
    'sdpa': partial(_attend, kernel=_sdpa_kernel),
}


def resolve_video_backend(name: str) -> Backend:
    """Return a backend by name; ``auto`` is ``sdpa``.

    Raises:
        ValueError: If there is no such backend for videos.
    """
    backend = VIDEO_BACKENDS.get('sdpa' if name == 'auto' else name)
    if backend is None:
        known = ', '.join(['auto', *VIDEO_BACKENDS])
        raise ValueError(f"no attention '{name}' for videos (known: {known})")
    return backend
