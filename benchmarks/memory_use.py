"""Measure the memory that one step of a model takes."""

from __future__ import annotations

import ctypes
import gc
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from swinv2_mm.analysis.memory import PeakMemory

_STATUS = Path('/proc/self/status')


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of one step; ``None`` where the device does not report it.

    Attributes:
        peak: On CUDA, the most that was allocated at a time, weights and kept constants included.
        saved: On a CPU, tensors kept from the forward for the backward pass, without weights.
        tensors: On a CPU, the most that tensors took at a time, without weights.
        resident: On a CPU, the most by which the process grew.
    """

    peak: int | None = None
    saved: int | None = None
    tensors: int | None = None
    resident: int | None = None


def measure_memory(
    step: Callable[[], object],
    *,
    forward: Callable[[], object],
    model: nn.Module,
    device: torch.device,
    held: int,
    with_tensors: bool,
) -> MemoryUse:
    """Run a step and note what it takes; gradients are counted, weights on a GPU only.

    Args:
        step: A forward pass, or a training step.
        forward: The first part of a training step, whose result keeps alive what the backward
            pass needs; or ``step`` itself.
        model: Has no gradients before the step.
        held: Bytes on a GPU that the model has before the step.
        with_tensors: Whether to follow every tensor on a CPU; not possible in compiled code.
    """
    model.zero_grad()
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return MemoryUse(peak=held + torch.cuda.max_memory_allocated(device) - before)
    saved = tensors = None
    if with_tensors:
        if forward is not step:
            saved = _tensor_bytes(forward, model=model).live
        tensors = _tensor_bytes(step, model=model).peak
        model.zero_grad()
    return MemoryUse(saved=saved, tensors=tensors, resident=_resident_growth(step))


class _TensorBytes(NamedTuple):
    """Count the bytes of the tensors that a call allocates: alive after it, and at the peak."""

    live: int
    peak: int


def _tensor_bytes(act: Callable[[], object], *, model: nn.Module) -> _TensorBytes:
    with PeakMemory() as memory:
        for tensor in (*model.parameters(), *model.buffers()):
            memory.hold(tensor)
        weights = memory.live
        out = act()
        live = memory.live - weights
        del out
    return _TensorBytes(live, memory.peak - weights)


def _resident_growth(step: Callable[[], object]) -> int | None:
    """Return by how much the process grows in a step; Linux only."""
    if sys.platform != 'linux':
        return None
    gc.collect()
    # What malloc has kept from earlier models would be used up first and hide the growth.
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return None
    before = _status_bytes('VmRSS')
    step()
    return _status_bytes('VmHWM') - before


def _status_bytes(key: str) -> int:
    return int(re.search(rf'^{key}:\s+(\d+) kB', _STATUS.read_text(), re.MULTILINE)[1]) * 1024


@contextmanager
def bounded_process(device: torch.device) -> Iterator[None]:
    """Have a CPU's allocator refuse what the machine does not have, instead of being killed."""
    if device.type != 'cpu' or sys.platform != 'linux':
        yield
        return
    available = re.search(
        r'^MemAvailable:\s+(\d+) kB', Path('/proc/meminfo').read_text(), re.MULTILINE
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _status_bytes('VmSize') + int(int(available[1]) * 1024 * 0.9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
