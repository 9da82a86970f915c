"""The backends of window attention by name, and which of them runs (design section 3)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..cpu_kernels import cpu_rule
from ..torch_private import has_active_transform, is_recording
from ..tracing import fx_leaf, is_traced
from ..window_partition import Size, WindowGrid
from . import eager as definition
from .failures import fall_back, run_or
from .flex import flex_gap, looked_up
from .grouped import grouped, kept
from .hybrid import around_sdpa, hybrid_gap
from .prologue import without_autocast
from .traced import traced
from .triton import fused, triton_gap

Backend = Callable[[Tensor, WindowGrid, Tensor, Tensor], Tensor]


def _unless_it_fails(
    name: str, run: Backend, qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor
) -> Tensor:
    operands = (qkv, grid, logit_scale, bias)
    return run_or(name, lambda: run(*operands), lambda: sdpa(*operands), of=name)


def _needs_grad(*operands: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in operands)


def _has_open_size(qkv: Tensor) -> bool:
    """Whether a graph is made that fits maps of every size."""
    return torch.compiler.is_compiling() or (
        is_recording() and any(isinstance(length, torch.SymInt) for length in qkv.shape)
    )


def _needs_torch(qkv: Tensor) -> bool:
    """Whether kernels give way: to a tracer or transform, or as there is no image."""
    return is_traced(qkv) or qkv.shape[0] == 0


def _of_sdpa(qkv: Tensor, *, window: Size, needs_grad: bool) -> Backend:
    if _has_open_size(qkv):
        return traced
    if has_active_transform():
        # Torch's fused attention knows neither forward-mode nor second derivatives.
        return definition.eager
    # Fake tensors stand for those of a larger device.
    if qkv.device.type == 'cpu' and type(qkv) is Tensor and not is_traced(qkv):
        if needs_grad and math.prod(window) <= cpu_rule().most_kept_tokens:
            return kept
        return grouped
    return definition.at_once


def _backend(function: Backend) -> Backend:
    """Make a function a backend: one node of a graph of ``torch.fx``, without autocast in it."""

    @functools.wraps(function)
    def run(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
        with without_autocast(qkv.device):
            return function(qkv, grid, logit_scale, bias)

    return fx_leaf(run)


@_backend
def eager(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """The readable definition, see ``eager.eager``."""
    if _has_open_size(qkv):
        return traced(qkv, grid, logit_scale, bias)
    return definition.eager(qkv, grid, logit_scale, bias)


@_backend
def sdpa(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Torch's fused attention; on a CPU in groups of windows that fit the cache."""
    needs_grad = _needs_grad(qkv, logit_scale, bias)
    runs = _of_sdpa(qkv, window=grid.window, needs_grad=needs_grad)
    return runs(qkv, grid, logit_scale, bias)


@_backend
def hybrid(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Torch's attention in float16 between elementwise kernels; else ``sdpa`` and a log line."""
    head_dim = qkv.shape[-1] // (3 * logit_scale.numel())
    if _needs_torch(qkv):
        return sdpa(qkv, grid, logit_scale, bias)
    reason = hybrid_gap(qkv, head_dim=head_dim)
    if reason is None:
        return _unless_it_fails('hybrid', around_sdpa, qkv, grid, logit_scale, bias)
    fall_back('hybrid', reason)
    return sdpa(qkv, grid, logit_scale, bias)


@_backend
def sequential(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """A group of windows after another, recomputed in backward (paper section 3.5)."""
    if torch.compiler.is_compiling():
        return checkpoint(traced, qkv, grid, logit_scale, bias, use_reentrant=False)
    if is_traced(qkv):
        return sdpa(qkv, grid, logit_scale, bias)
    return grouped(qkv, grid, logit_scale, bias)


@_backend
def triton(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """One fused kernel from map to map; ``sdpa`` and a log line where it cannot run."""
    head_dim = qkv.shape[-1] // (3 * logit_scale.numel())
    if _needs_torch(qkv):
        return sdpa(qkv, grid, logit_scale, bias)
    reason = triton_gap(qkv, window=grid.window, head_dim=head_dim)
    if reason is None:
        return _unless_it_fails('triton', fused, qkv, grid, logit_scale, bias)
    fall_back('triton', reason)
    return sdpa(qkv, grid, logit_scale, bias)


@_backend
def flex(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """``flex_attention``, bias and masks looked up; ``sdpa`` and a log line where it cannot run."""
    head_dim = qkv.shape[-1] // (3 * logit_scale.numel())
    if _needs_torch(qkv):
        return sdpa(qkv, grid, logit_scale, bias)
    needs_grad = _needs_grad(qkv, logit_scale, bias)
    reason = flex_gap(qkv, head_dim=head_dim, needs_grad=needs_grad)
    if reason is None:
        return looked_up(qkv, grid, logit_scale, bias)
    fall_back('flex', reason)
    return sdpa(qkv, grid, logit_scale, bias)


def _takes_hybrid(qkv: Tensor, *, head_dim: int) -> bool:
    is_half = qkv.dtype in (torch.float16, torch.bfloat16)
    # An exported program must run without this package.
    return (
        qkv.device.type == 'cuda'
        and is_half
        and not torch.compiler.is_exporting()
        and hybrid_gap(qkv, head_dim=head_dim) is None
    )


@_backend
def auto(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """``hybrid`` in half precision on CUDA, else ``sdpa``."""
    head_dim = qkv.shape[-1] // (3 * logit_scale.numel())
    runs = hybrid if _takes_hybrid(qkv, head_dim=head_dim) else sdpa
    return runs(qkv, grid, logit_scale, bias)


def describe_backend(
    backend: Backend,
    like: Tensor,
    *,
    window: Size,
    head_dim: int,
    needs_grad: bool,
    is_compiled: bool,
) -> str:
    """Say what runs behind the name of a backend: ``grouped (sdpa on a CPU)``.

    Args:
        backend: From ``resolve_backend``.
        like: A tensor of the type and device that the model runs in.
        window: Sides of the windows, in tokens.
        head_dim: Channels of a head.
        needs_grad: Whether the model is trained.
        is_compiled: Whether ``torch.compile`` traces the model.
    """
    # What is asked is the type of an activation: neither a Parameter's nor a shard's.
    like = torch.empty(0, dtype=like.dtype, device=like.device)
    if backend is auto:
        backend = hybrid if _takes_hybrid(like, head_dim=head_dim) else sdpa
    name = getattr(backend, '__name__', str(backend))
    if backend is triton:
        reason = triton_gap(like, window=window, head_dim=head_dim)
    elif backend is flex:
        reason = flex_gap(like, head_dim=head_dim, needs_grad=needs_grad)
    elif backend is hybrid:
        reason = hybrid_gap(like, head_dim=head_dim)
    else:
        reason = None
    runs = backend
    if is_compiled and (reason is not None or backend not in (hybrid, triton, flex)):
        runs = traced
    elif backend is sdpa or reason is not None:
        runs = _of_sdpa(like, window=window, needs_grad=needs_grad)
    elif backend is sequential:
        runs = grouped
    device = 'a CPU' if like.device.type == 'cpu' else like.device.type.upper()
    why = '' if reason is None else f', as {reason}'
    return f'{getattr(runs, "__name__", name)} ({name} on {device}{why})'


BACKENDS: dict[str, Backend] = {
    'eager': eager,
    'sdpa': sdpa,
    'hybrid': hybrid,
    'flex': flex,
    'triton': triton,
    'sequential': sequential,
}


def resolve_backend(name: str) -> Backend:
    """Return a backend by name.

    The fused kernels have been tested under Triton's interpreter only: until
    tests/test_attention_gpu.py has passed on a GPU, they run where they are asked for.

    Raises:
        ValueError: If there is no such backend.
    """
    if name == 'auto':
        return auto
    if name not in BACKENDS:
        raise ValueError(f"unknown attention '{name}' (known: auto, {', '.join(BACKENDS)})")
    return BACKENDS[name]
