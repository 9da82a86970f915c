"""The backends of window attention by name, and which of them runs (design section 3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from .attention_eager import eager, sdpa, sequential
from .attention_flex import flex_gap, looked_up
from .attention_triton import fused, triton_gap
from .windows import WindowGrid

Backend = Callable[[Tensor, WindowGrid, Tensor, Tensor], Tensor]

# Tokens from which ``auto`` trains in float32 with the kernels, to save the N x N bias and its
# gradient: the float32 kernels have no tensor cores, so that below torch's own are preferred.
_FLOAT32_TOKENS = 24 * 24


@lru_cache
def _log_once(message: str) -> None:
    logging.getLogger('swinv2_mm').warning(message)


def _fall_back(name: str, reason: str) -> None:
    # A logger would break the graph of torch.compile.
    if not torch.compiler.is_compiling():
        _log_once(f"attention '{name}' falls back to 'sdpa': {reason}")


def _needs_grad(*operands: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in operands)


def triton(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """One fused kernel from map to map; ``sdpa`` and a log line where it cannot run."""
    head_dim = qkv.shape[-1] // (3 * logit_scale.numel())
    reason = triton_gap(qkv, window=grid.window, head_dim=head_dim)
    if reason is None:
        return fused(qkv, grid, logit_scale, bias)
    _fall_back('triton', reason)
    return sdpa(qkv, grid, logit_scale, bias)


def flex(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """``flex_attention``, bias and masks looked up; ``sdpa`` and a log line where it cannot run."""
    head_dim = qkv.shape[-1] // (3 * logit_scale.numel())
    needs_grad = _needs_grad(qkv, logit_scale, bias)
    reason = flex_gap(qkv, head_dim=head_dim, needs_grad=needs_grad)
    if reason is None:
        return looked_up(qkv, grid, logit_scale, bias)
    _fall_back('flex', reason)
    return sdpa(qkv, grid, logit_scale, bias)


def auto(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Pick by device, type, window and training.

    CUDA in half precision, or training large windows in float32: ``triton``. All else: ``sdpa``.
    A rule by reasoning: no GPU was at hand to measure where one overtakes the other.
    """
    is_worth_it = qkv.is_cuda and (
        qkv.element_size() == 2
        or (math.prod(grid.window) >= _FLOAT32_TOKENS and _needs_grad(qkv, logit_scale, bias))
    )
    return (triton if is_worth_it else sdpa)(qkv, grid, logit_scale, bias)


BACKENDS: dict[str, Backend] = {
    'eager': eager,
    'sdpa': sdpa,
    'flex': flex,
    'triton': triton,
    'sequential': sequential,
}


def resolve_backend(name: str) -> Backend:
    """Return a backend by name; ``auto`` chooses one at each call.

    Raises:
        ValueError: If there is no such backend.
    """
    if name == 'auto':
        return auto
    if name not in BACKENDS:
        raise ValueError(f"unknown attention '{name}' (known: auto, {', '.join(BACKENDS)})")
    return BACKENDS[name]
