"""First run on a new GPU: which backends work, how exact, fast and lean they are, beside timm.

Every check is on its own: what raises is a row with the reason, what the time does not reach is a
row too.
"""

from __future__ import annotations

import functools
import gc
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swinv2_mm.core.attention import BACKENDS, proof
from swinv2_mm.core.attention.backends import backend_gap
from swinv2_mm.core.cpu_kernels import cpu_rule
from swinv2_mm.core.window_partition import window_grid

from .gpu_cases import (
    ATTENTION_CASES,
    BACKBONE_CASES,
    CPU_CASES,
    AttentionCase,
    BackboneCase,
    build_backbone,
    draw_images,
)

# Time and runs that one figure takes; figures of a CPU are for show.
_SAMPLE_S, _MOST_RUNS, _RUNS_ON_CPU = 0.5, 20, 2
_HEAD_DIM = 32
_MIB = 2**20


@dataclass(frozen=True)
class Row:
    """What was found.

    Attributes:
        check: Which check it is of.
        case: Sizes.
        name: Backend or implementation.
        figures: By name: ``ms_inference``, ``ms_step``, ``mib``, ``error``, ``error_gradients``.
        note: Why there are none, or what else there is to say.
        is_wrong: Whether it is not as it should be.
    """

    check: str
    case: str
    name: str
    figures: dict[str, float] = field(default_factory=dict)
    note: str = ''
    is_wrong: bool = False


def describe(device: torch.device) -> dict[str, str]:
    """Return what the figures depend on besides the code."""
    found = {'python': platform.python_version(), 'torch': torch.__version__}
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        found |= {
            'device': properties.name,
            'compute capability': f'{properties.major}.{properties.minor}',
            'multiprocessors': str(properties.multi_processor_count),
            'memory': f'{properties.total_memory / 2**30:.1f} GiB',
            'cuda': str(torch.version.cuda),
            'cudnn': str(torch.backends.cudnn.version()),
        }
    else:
        instructions = torch.backends.cpu.get_cpu_capability()
        found |= {'device': f'CPU ({instructions})', 'cpu_kernels': cpu_rule().name}
    for name in ('triton', 'timm'):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            found[name] = 'not installed'
    return found


def run_checks(device: torch.device, *, seconds: float) -> Iterator[Row]:
    """Run all checks, the most telling first.

    Args:
        device: CUDA; on a CPU everything is small, and shows only that the checks run.
        seconds: Nothing begins after so long.
    """
    start = time.monotonic()
    attention, backbones = (ATTENTION_CASES, BACKBONE_CASES) if device.type == 'cuda' else CPU_CASES
    checks: list[tuple[str, str, str, Callable[[], Row]]] = []

    def add(check: str, case: object, name: str, act: Callable[..., Row]) -> None:
        row = functools.partial(Row, check, str(case), name)
        checks.append((check, str(case), name, functools.partial(act, row)))

    for case in attention:
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for name in BACKENDS:
                label = f'{case}, {str(dtype).removeprefix("torch.")}'
                act = functools.partial(_check_attention, case=case, dtype=dtype, device=device)
                add('attention', label, name, act)
    for case in backbones:
        for name in ('auto', 'timm', 'sdpa'):
            act = functools.partial(_check_backbone, case=case, device=device, name=name)
            add('backbone', case, name, act)
    smallest = backbones[0]
    add('synchronization', smallest, 'auto', functools.partial(_check_waits, smallest, device))
    add('CUDA graph', smallest, 'auto', functools.partial(_check_graph, smallest, device))
    # Decisive checks come first in case the time is short: backbones before rarer dtypes.
    checks.sort(key=lambda check: check[0] == 'attention' and 'bfloat16' not in check[1])
    for check, case, name, act in checks:
        if time.monotonic() - start > seconds:
            yield Row(check, case, name, note='not reached in the time')
            continue
        try:
            yield act()
        except Exception as error:
            line = next(iter(str(error).splitlines()), '')
            note = f'{type(error).__name__}: {line}'[:200]
            yield Row(check, case, name, note=note, is_wrong=name != 'timm')
        gc.collect()
        if device.type == 'cuda':
            torch.cuda.empty_cache()


def _check_attention(
    row: Callable[..., Row], *, case: AttentionCase, dtype: torch.dtype, device: torch.device
) -> Row:
    """Compare one backend with the definition in a wider type, and time it."""
    name = row().name
    generator = torch.Generator().manual_seed(0)
    side, heads, sides = case.size, case.heads, (case.window, case.window)
    grid = window_grid((side, side), window=sides, shifted=True, tiling='fixed')
    qkv = torch.randn(case.images, side, side, 3 * heads * _HEAD_DIM, generator=generator)
    table = 8 + 3 * torch.randn(heads, (2 * grid.window[0] - 1) ** 2, generator=generator)
    scale = torch.linspace(1.0, 4.6, heads).reshape(-1, 1, 1)
    operands = [qkv.to(device, dtype), scale.to(device), table.to(device)]
    reason = backend_gap(name, operands[0], window=grid.window, head_dim=_HEAD_DIM, needs_grad=True)
    if reason is not None:
        return row(note=reason)
    run = BACKENDS[name]
    trials, limits = proof.prepare_trials({name: run}, operands, grid, needs_grad=True)
    errors = trials[name].errors()
    is_wrong = any(not error <= limit for error, limit in zip(errors, limits, strict=True))

    def forward() -> Tensor:
        with torch.no_grad():
            return run(operands[0], grid, *operands[1:])

    figures = {'error': errors[0], 'error_gradients': max(errors[1:])}
    figures |= _timed(forward, trials[name].run, device=device)
    note = 'limits ' + ', '.join(f'{limit:.1e}' for limit in limits) if is_wrong else ''
    return row(figures=figures, note=note, is_wrong=is_wrong)


def _check_backbone(
    row: Callable[..., Row], *, case: BackboneCase, device: torch.device, name: str
) -> Row:
    """Time an inference and a training step under bf16 autocast."""
    model, images = build_backbone(case, name=name).to(device), draw_images(case, device)

    def forward() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            out = model(images)
        # timm returns the features themselves, ours a map per stage.
        return out if isinstance(out, Tensor) else out[0]

    def infer() -> Tensor:
        with torch.no_grad():
            return forward()

    def step() -> None:
        forward().float().square().mean().backward()
        model.zero_grad(set_to_none=True)

    # In training mode, where nothing is random here: a cached bias table would be ours only.
    is_finite = bool(forward().isfinite().all())
    return row(figures=_timed(infer, step, device=device), is_wrong=not is_finite)


def _check_waits(case: BackboneCase, device: torch.device, row: Callable[..., Row]) -> Row:
    """Assert that a warm forward pass never waits for the device."""
    if device.type != 'cuda':
        return row(note='needs CUDA')
    model, images = build_backbone(case, name='auto').to(device).eval(), draw_images(case, device)
    with torch.no_grad():
        model(images)
        torch.cuda.synchronize(device)
        torch.cuda.set_sync_debug_mode('error')
        try:
            model(images)
        finally:
            torch.cuda.set_sync_debug_mode('default')
    return row(note='none')


def _check_graph(case: BackboneCase, device: torch.device, row: Callable[..., Row]) -> Row:
    """Capture a forward pass as a CUDA graph; its replay gives the same and takes less time."""
    if device.type != 'cuda':
        return row(note='needs CUDA')
    model, images = build_backbone(case, name='auto').to(device).eval(), draw_images(case, device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    with torch.no_grad(), autocast:
        expected = model(images)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outs = model(images)
        graph.replay()
        is_same = all(map(torch.equal, outs, expected))
        figures = {
            'ms_inference': _milliseconds(lambda: model(images), device=device),
            'ms_graph': _milliseconds(graph.replay, device=device),
        }
    return row(figures=figures, is_wrong=not is_same)


def _timed(
    forward: Callable[[], object], step: Callable[[], object], *, device: torch.device
) -> dict[str, float]:
    """Return the time of both, and the memory that the second takes beyond what is there."""
    figures = {'ms_inference': _milliseconds(forward, device=device)}
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    figures['ms_step'] = _milliseconds(step, device=device)
    if device.type == 'cuda':
        figures['mib'] = (torch.cuda.max_memory_allocated(device) - before) / _MIB
    return figures


def _milliseconds(run: Callable[[], object], *, device: torch.device) -> float:
    """Return the median time of a run, after one that compiles."""

    def once() -> float:
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    first = once()
    most = _MOST_RUNS if device.type == 'cuda' else _RUNS_ON_CPU
    runs = min(most, math.ceil(_SAMPLE_S / max(first, 1e-6)))
    return 1000 * statistics.median([first, *(once() for _ in range(runs - 1))])
