"""Split heads, normalise queries and keys and apply the logit scale, for all backends.

Paper equation 2: the logits are the cosine of query and key times a scale per head, plus a bias.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from ..torch_private import is_exporting
from ..window_partition import Size

# Upper bound of the learnt scale (paper: the temperature is larger than 0.01).
MAX_LOGIT_SCALE = math.log(100.0)
# Least norm that a vector is divided by, as in ``F.normalize``.
_MIN_NORM = 1e-12


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast: logits reach 100, half precision there is inaccurate."""
    # Entered only if needed: the meta device has no autocast.
    if device.type == 'meta' or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def bounded_scale(logit_scale: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return the factor of each head's cosines: (heads, 1, 1) -> (heads, 1, 1)."""
    scale = logit_scale.to(dtype).clamp(max=MAX_LOGIT_SCALE).exp()
    return scale.reshape(-1, 1, 1)


def copied(x: Tensor) -> Tensor:
    """Make a map contiguous in an exported graph, which fits maps of every size then.

    To flatten axes without a copy, torch asks whether there is one window, head or image.
    """
    return x.clone(memory_format=torch.contiguous_format) if is_exporting() else x


def split_heads(windows: Tensor, *, heads: int, parts: int = 3) -> Tensor:
    """Take the channels of windows apart into parts (query, key, value) and heads.

    Shapes:
        (B, nH, Mh, nW, Mw, parts * C) -> (parts, B, nH, nW, heads, N, d); any number of axes
    """
    last = windows.ndim - 1
    x = windows.unflatten(-1, (parts, heads, -1))
    counts, sides = range(1, last, 2), range(2, last, 2)
    x = x.permute(last, 0, *counts, last + 1, *sides, last + 2)
    return copied(x).flatten(-1 - len(sides), -2)


def merge_heads(x: Tensor, *, window: Size) -> Tensor:
    """Undo ``split_heads``.

    Shapes:
        (parts, B, nH, nW, heads, N, d) -> (B, nH, Mh, nW, Mw, parts * C)
    """
    num_axes = len(window)
    x = x.unflatten(-2, window)
    heads = 2 + num_axes
    pairs = (i for axis in range(num_axes) for i in (2 + axis, heads + 1 + axis))
    return copied(x.permute(1, *pairs, 0, heads, x.ndim - 1)).flatten(-3)


def cosine_operands(windows: Tensor, *, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values: normalised, the scale folded into the queries.

    Args:
        windows: What ``to_windows`` returned.
        scale: What ``bounded_scale`` returned; its type is that of the result.

    Shapes:
        (B, nH, Mh, nW, Mw, 3C), (heads, 1, 1) -> three of (B, nH, nW, heads, N, d)
    """
    q, k, v = split_heads(windows, heads=len(scale)).to(scale.dtype).unbind()
    return F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1), v


def dot_operands(windows: Tensor, *, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values as they are, the scale folded into the queries (Swin V1).

    Shapes:
        As ``cosine_operands``.
    """
    q, k, v = split_heads(windows, heads=len(scale)).to(scale.dtype).unbind()
    return q * scale, k, v


def normalize_(qk: Tensor, *, scale: Tensor) -> Tensor:
    """Normalise and scale in place, for a backend with a gradient of its own.

    Returns:
        The factors that queries and keys were multiplied by, which that gradient needs.

    Shapes:
        (2, n, heads, N, d), (heads, 1, 1) -> (2, n, heads, N, 1)
    """
    factor = torch.linalg.vector_norm(qk, dim=-1, keepdim=True)
    factor = factor.clamp_(min=_MIN_NORM).reciprocal_()
    factor[0].mul_(scale)
    qk *= factor
    return factor


def normalize_backward_(
    d_qk: Tensor, *, normalized: Tensor, factor: Tensor, scale: Tensor
) -> Tensor:
    """Turn gradients of normalised queries and keys into those of what they were, in place.

    Args:
        d_qk: Gradients of what ``normalize_`` left.
        normalized: What it left.
        factor: What it returned.

    Returns:
        The gradient of the scale.

    Shapes:
        (2, n, heads, N, d), (2, n, heads, N, 1), (heads, 1, 1) -> (heads, 1, 1)
    """
    # The component along the vector has no effect.
    along = (normalized * d_qk).sum(-1, keepdim=True)
    d_scale = along[0].sum((0, 2), keepdim=True)[0] / scale
    along[0].div_(scale.square())
    d_qk.addcmul_(normalized, along, value=-1).mul_(factor)
    return d_scale
