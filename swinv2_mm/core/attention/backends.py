"""The backends of window attention by name, and which of them runs (design section 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..window_partition import WindowGrid
from . import eager as definition
from .flex import flex_gap, looked_up
from .grouped import grouped
from .traced import traced
from .triton import fused, triton_gap

Backend = Callable[[Tensor, WindowGrid, Tensor, Tensor], Tensor]


@lru_cache
def _log_once(message: str) -> None:
    logging.getLogger('swinv2_mm').warning(message)


def _fall_back(name: str, reason: str) -> None:
    # A logger would break the graph of torch.compile.
    if not torch.compiler.is_compiling():
        _log_once(f"attention '{name}' falls back to 'sdpa': {reason}")


def _needs_grad(*operands: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in operands)


def eager(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """The readable definition, see ``eager.eager``."""
    if torch.compiler.is_compiling():
        return traced(qkv, grid, logit_scale, bias)
    return definition.eager(qkv, grid, logit_scale, bias)


def sdpa(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Torch's fused attention; on a CPU in groups of windows that fit the cache."""
    if torch.compiler.is_compiling():
        return traced(qkv, grid, logit_scale, bias)
    # Fake tensors stand for those of a larger device.
    if qkv.device.type == 'cpu' and type(qkv) is Tensor:
        return grouped(qkv, grid, logit_scale, bias)
    return definition.at_once(qkv, grid, logit_scale, bias)


def sequential(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """A group of windows after another, recomputed in backward (paper section 3.5)."""
    if torch.compiler.is_compiling():
        return checkpoint(traced, qkv, grid, logit_scale, bias, use_reentrant=False)
    return grouped(qkv, grid, logit_scale, bias)


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


BACKENDS: dict[str, Backend] = {
    'eager': eager,
    'sdpa': sdpa,
    'flex': flex,
    'triton': triton,
    'sequential': sequential,
}


def resolve_backend(name: str) -> Backend:
    """Return a backend by name; ``auto`` is ``sdpa``.

    The fused kernels have been tested under Triton's interpreter only: until
    tests/test_attention_gpu.py has passed on a GPU, they run where they are asked for.

    Raises:
        ValueError: If there is no such backend.
    """
    if name == 'auto':
        return sdpa
    if name not in BACKENDS:
        raise ValueError(f"unknown attention '{name}' (known: auto, {', '.join(BACKENDS)})")
    return BACKENDS[name]
