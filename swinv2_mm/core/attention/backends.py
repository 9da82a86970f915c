"""The backends of window attention by name, and which of them runs (design section 3)."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..cpu_kernels import cpu_rule
from ..torch_private import has_active_transform, is_recording
from ..tracing import fx_leaf, is_traced
from ..window_partition import Size, WindowGrid
from . import eager as definition
from . import proof
from .failures import fall_back, run_or
from .flex import flex_gap, looked_up
from .grouped import grouped, kept
from .hybrid import around_sdpa, hybrid_gap
from .prologue import without_autocast
from .traced import traced
from .triton import fused, triton_gap

Backend = Callable[[Tensor, WindowGrid, Tensor, Tensor], Tensor]
# Environment variable that says which backend ``auto`` is, on every device.
VARIABLE = 'SWINV2_ATTENTION'
# Backends that ``auto`` measures on CUDA. ``flex`` has to be asked for: torch compiles it at its
# first use.
_CUDA_CANDIDATES = ('hybrid', 'triton', 'sdpa')


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
    """Whether torch's operators must run: under a tracer or transform, or without an image."""
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


def _or_sdpa(
    name: str, kernels: Backend, qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor
) -> Tensor:
    """Run kernels where they can; elsewhere ``sdpa``, with a log line that says why."""
    if _needs_torch(qkv):
        return sdpa(qkv, grid, logit_scale, bias)
    reason = _gap_of_call(name, operands=(qkv, logit_scale, bias), grid=grid)
    if reason is None:
        return _unless_it_fails(name, kernels, qkv, grid, logit_scale, bias)
    fall_back(name, reason)
    return sdpa(qkv, grid, logit_scale, bias)


@_backend
def hybrid(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Torch's attention in float16 between elementwise kernels; else ``sdpa`` and a log line."""
    return _or_sdpa('hybrid', around_sdpa, qkv, grid, logit_scale, bias)


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
    return _or_sdpa('triton', fused, qkv, grid, logit_scale, bias)


@_backend
def flex(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """``flex_attention``, bias and masks looked up; ``sdpa`` and a log line where it cannot run."""
    return _or_sdpa('flex', looked_up, qkv, grid, logit_scale, bias)


def _chooses(qkv: Tensor) -> bool:
    """Whether ``auto`` has a choice."""
    return qkv.device.type == 'cuda' and not _needs_torch(qkv)


def _cuda_default(qkv: Tensor, *, head_dim: int) -> Backend:
    """What ``auto`` runs where nothing may be measured: ``hybrid`` in half precision on CUDA."""
    is_half = qkv.dtype in (torch.float16, torch.bfloat16)
    # An exported program must run without this package.
    takes_hybrid = (
        qkv.device.type == 'cuda'
        and is_half
        and not torch.compiler.is_exporting()
        and hybrid_gap(qkv, head_dim=head_dim) is None
    )
    return hybrid if takes_hybrid else sdpa


@_backend
def auto(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """The fastest backend that is right on this GPU (see ``proof``); ``sdpa`` without CUDA."""
    operands = (qkv, logit_scale, bias)
    if not _chooses(qkv):
        return sdpa(qkv, grid, logit_scale, bias)
    default = _cuda_default(qkv, head_dim=qkv.shape[-1] // (3 * logit_scale.numel()))
    # A fake tensor has no values to compare; what runs on it is counted as the model's operations.
    if torch.compiler.is_compiling() or type(qkv) is not Tensor:
        return default(qkv, grid, logit_scale, bias)

    def candidates() -> dict[str, Backend]:
        is_able = functools.partial(_gap_of_call, operands=operands, grid=grid)
        return {name: BACKENDS[name] for name in _CUDA_CANDIDATES if is_able(name) is None}

    name = proof.choose(
        candidates,
        operands,
        grid,
        fallback=default.__name__,
        needs_grad=_needs_grad(*operands),
    )
    return BACKENDS[name](qkv, grid, logit_scale, bias)


def backend_gap(
    name: str, qkv: Tensor, *, window: Size, head_dim: int, needs_grad: bool
) -> str | None:
    """Say why the kernels of a backend cannot run; ``None`` where they can, or it has none."""
    if name == 'hybrid':
        return hybrid_gap(qkv, head_dim=head_dim)
    if name == 'triton':
        return triton_gap(qkv, window=window, head_dim=head_dim)
    if name == 'flex':
        return flex_gap(qkv, head_dim=head_dim, needs_grad=needs_grad)
    return None


def _gap_of_call(
    name: str, *, operands: tuple[Tensor, Tensor, Tensor], grid: WindowGrid
) -> str | None:
    qkv, logit_scale, _ = operands
    return backend_gap(
        name,
        qkv,
        window=grid.window,
        head_dim=qkv.shape[-1] // (3 * logit_scale.numel()),
        needs_grad=_needs_grad(*operands),
    )


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
        backend: What ``resolve_backend`` returned.
        like: A tensor of the type and device that the model runs in.
        window: Sides of the windows, in tokens.
        head_dim: Channels of a head.
        needs_grad: Whether the model is trained.
        is_compiled: Whether ``torch.compile`` traces the model.
    """
    # The type of an activation counts, not that of a Parameter or a shard.
    like = torch.empty(0, dtype=like.dtype, device=like.device)
    if backend is auto:
        if like.device.type == 'cuda' and not is_compiled:
            return f'auto (on CUDA the fastest of {", ".join(_CUDA_CANDIDATES)}, at first use)'
        backend = _cuda_default(like, head_dim=head_dim)
    name = getattr(backend, '__name__', str(backend))
    reason = backend_gap(name, like, window=window, head_dim=head_dim, needs_grad=needs_grad)
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


def is_built_in(backend: Backend) -> bool:
    """Whether a backend is of this package: each call then returns memory of its own."""
    return backend is auto or backend in BACKENDS.values()


def resolve_backend(name: str) -> Backend:
    """Return a backend by name; ``SWINV2_ATTENTION`` names that of ``auto``.

    Raises:
        ValueError: If there is no such backend.
    """
    source = 'attention'
    if name == 'auto':
        source, name = VARIABLE, os.environ.get(VARIABLE) or 'auto'
        if name == 'auto':
            return auto
    if name not in BACKENDS:
        known = ', '.join(BACKENDS)
        raise ValueError(f"unknown {source} '{name}' (known: auto, {known})")
    return BACKENDS[name]
