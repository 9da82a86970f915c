"""Prove which backend is right and fast on this GPU, for ``attention='auto'``.

``selection`` decides; this module has what it decides about: operands, limits, clock, processes.
Candidates are compared with the definition on some windows of the very map that is met, and timed
on all of it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ..position_bias import computing_dtype
from ..tensor_cache import is_capturing
from ..torch_private import default_store, is_faking, is_in_backward
from ..tracing import is_traced
from ..window_partition import WindowGrid
from .eager import attend, eager
from .failures import errors_raised
from .prologue import bounded_scale
from .selection import ChoiceFile, Peers, Selector, Trial

Run = Callable[[Tensor, WindowGrid, Tensor, Tensor], Tensor]
# Windows that candidates are checked on: 8 by 8 of an image, or of several images.
_SAMPLE_SIDE = 8
# A candidate may err twice as much as the definition with products in half precision.
_ALLOWED = 2.0
# For float32, where the order of sums decides: gradients of few numbers came to 1.3e-4.
_LEAST_LIMIT = 3e-4
# Prefix of our keys in the store of a job, which others use too.
_PREFIX = 'swinv2_mm attention'


def rounded(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Compute ``eager`` with the operands of both products rounded to bfloat16, as autocast does.

    In float32 it is ``eager``.
    """
    is_half = qkv.dtype in (torch.float16, torch.bfloat16)
    dtype = torch.bfloat16 if is_half else qkv.dtype

    def kernel(q: Tensor, k: Tensor, v: Tensor, pairs: Tensor) -> Tensor:
        logits = (q.to(dtype) @ k.to(dtype).mT).to(q.dtype) + pairs
        return torch.softmax(logits, dim=-1).to(dtype) @ v.to(dtype)

    scale = bounded_scale(logit_scale, dtype=computing_dtype(qkv))
    return attend(qkv, grid, scale, bias, kernel=kernel)


def sample_of(qkv: Tensor, grid: WindowGrid) -> tuple[Tensor, WindowGrid]:
    """Return the first windows of a map, at most 64, with the seams and padding of those."""
    counts = [min(n, _SAMPLE_SIDE) for n in grid.num_windows]
    images = max(1, _SAMPLE_SIDE**2 // math.prod(counts))
    size = tuple(
        length if count == n else count * side
        for count, n, length, side in zip(
            counts, grid.num_windows, grid.size, grid.window, strict=True
        )
    )
    return qkv[:images, : size[0], : size[1]], replace(grid, size=size)


def results_of(
    run: Run, operands: Sequence[Tensor], grid: WindowGrid, *, d_out: Tensor | None
) -> list[Tensor]:
    """Return the output of a backend and, with ``d_out``, the gradients of its operands."""
    with torch.set_grad_enabled(d_out is not None), _own_saved_tensors(), errors_raised():
        qkv, logit_scale, bias = (x.detach().requires_grad_(d_out is not None) for x in operands)
        out = run(qkv, grid, logit_scale, bias)
        if d_out is None:
            return [out]
        return [out.detach(), *torch.autograd.grad(out, (qkv, logit_scale, bias), d_out)]


def _own_saved_tensors() -> AbstractContextManager[object]:
    """Keep an activation checkpoint around the model from counting what a trial saves."""
    return torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)


def _error(actual: Tensor, truth: Tensor) -> float:
    wide = actual.to(truth.dtype)
    norm = torch.linalg.vector_norm(truth).clamp(min=torch.finfo(truth.dtype).tiny)
    return float(torch.linalg.vector_norm(wide - truth) / norm)


def prepare_trials(
    candidates: Mapping[str, Run],
    operands: Sequence[Tensor],
    grid: WindowGrid,
    *,
    needs_grad: bool,
) -> tuple[dict[str, Trial], list[float]]:
    """Return what ``selection.compare`` takes: a trial per candidate, and the limits.

    Args:
        candidates: Backends by name.
        operands: The map, ``logit_scale`` and the bias table of the call.
        grid: Size of the map in tokens.
        needs_grad: Whether gradients count too.
    """
    qkv, *rest = (x.detach() for x in operands)
    part, part_grid = sample_of(qkv, grid)
    generator = torch.Generator(qkv.device).manual_seed(0)

    def direction(x: Tensor) -> Tensor | None:
        shape = (*x.shape[:3], x.shape[3] // 3)
        drawn = torch.randn(shape, generator=generator, device=x.device)
        return drawn.to(x.dtype) if needs_grad else None

    wide = torch.float64 if part.dtype in (torch.float32, torch.float64) else torch.float32
    d_part, d_whole = direction(part), direction(qkv)
    truth = results_of(
        eager,
        [x.to(wide) for x in (part, *rest)],
        part_grid,
        d_out=None if d_part is None else d_part.to(wide),
    )

    def errors(run: Run) -> list[float]:
        found = results_of(run, (part, *rest), part_grid, d_out=d_part)
        return [_error(a, b) for a, b in zip(found, truth, strict=True)]

    own = errors(rounded)
    # Those of the output are a floor for gradients of few numbers, whose errors are of chance.
    limits = [max(_ALLOWED * max(error, own[0]), _LEAST_LIMIT) for error in own]
    trials = {
        name: Trial(
            functools.partial(errors, run),
            functools.partial(results_of, run, (qkv, *rest), grid, d_out=d_whole),
        )
        for name, run in candidates.items()
    }
    return trials, limits


@functools.cache
def key_of(
    device: torch.device,
    dtype: torch.dtype,
    *,
    tokens: int,
    heads: int,
    head_dim: int,
    needs_grad: bool,
) -> str:
    """Return what a choice depends on, as text; the tokens of a window to a power of two."""
    is_cuda = device.type == 'cuda'
    parts = [torch.cuda.get_device_name(device) if is_cuda else device.type]
    parts.append(f'torch {torch.__version__}')
    if is_cuda:
        parts.append(f'cuDNN {torch.backends.cudnn.version()}')
    for name in ('triton', 'swinv2_mm'):
        try:
            parts.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            continue
    parts += [
        str(dtype).removeprefix('torch.'),
        f'windows of {1 << (tokens - 1).bit_length()}',
        f'{heads} heads of {head_dim}',
        'training' if needs_grad else 'inference',
    ]
    return ', '.join(parts)


def _may_measure(qkv: Tensor) -> bool:
    """Whether trials may run now: on values, outside of graphs, and not in a backward pass."""
    return not (is_capturing() or is_in_backward() or is_faking() or is_traced(qkv) or not len(qkv))


def _seconds(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


class _Job:
    """The processes of ``torch.distributed``, by the store that they were started with.

    No collective: a process may meet a key that the others do not.
    """

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self._store = default_store()

    def publish(self, key: str, value: str) -> None:
        self._store.set(f'{_PREFIX} {key}', value)

    def find(self, key: str, *, seconds: float) -> str | None:
        key = f'{_PREFIX} {key}'
        try:
            self._store.wait([key], timedelta(seconds=seconds))
        except RuntimeError:
            # Rank 0 has not answered in time, or has ended.
            return None
        return str(self._store.get(key).decode())


def _peers() -> Peers | None:
    is_job = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return _Job() if is_job else None


def _path() -> Path | None:
    folder = os.environ.get('XDG_CACHE_HOME')
    try:
        root = Path(folder) if folder else Path.home() / '.cache'
    except RuntimeError:
        # The user has no home directory.
        return None
    return root / 'swinv2_mm' / 'attention.json'


@functools.cache
def selector() -> Selector:
    """Return the selector of this process."""
    return Selector(ChoiceFile(_path()), clock=_seconds, peers=_peers)


def choose(
    candidates: Callable[[], Mapping[str, Run]],
    operands: Sequence[Tensor],
    grid: WindowGrid,
    *,
    fallback: str,
    needs_grad: bool,
) -> str:
    """Return the name of the candidate that runs on these operands.

    Args:
        candidates: Returns what can run, by name.
        operands: The map, ``logit_scale`` and the bias table.
        grid: Size of the map in tokens.
        fallback: What runs where nothing may be measured.
        needs_grad: Whether a backward pass follows.
    """
    qkv, logit_scale, _ = operands
    # First: the compiler cannot trace the rest. A fake tensor stands for one of a larger device.
    if (
        torch.compiler.is_compiling()
        or torch.are_deterministic_algorithms_enabled()
        or type(qkv) is not Tensor
    ):
        return fallback
    heads = logit_scale.numel()
    key = key_of(
        qkv.device,
        qkv.dtype,
        tokens=math.prod(grid.window),
        heads=heads,
        head_dim=qkv.shape[-1] // (3 * heads),
        needs_grad=needs_grad,
    )
    known = selector().known(key)
    if known is not None:
        return known
    if not _may_measure(qkv):
        return fallback
    runs = candidates()
    return selector().choose(
        key,
        names=tuple(runs),
        fallback=fallback,
        prepare=lambda: prepare_trials(runs, operands, grid, needs_grad=needs_grad),
    )
