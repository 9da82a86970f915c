"""Measure the throughput of a training in images per second."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_BYTES_PER_MB = 2**20  # as MMEngine counts the memory of a GPU
# Unit in which getrusage reports memory.
_RSS_UNIT_BYTES = 1 if sys.platform == 'darwin' else 1024
_STATUS = Path('/proc/self/status')  # Linux


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process; 0 where nothing counts it (Windows)."""
    # getrusage may count the process that started this one: what it held then is carried over.
    status = _STATUS.read_text() if _STATUS.exists() else ''
    if found := re.search(r'^VmHWM:\s+(\d+) kB', status, re.MULTILINE):
        return int(found[1]) * 1024
    if importlib.util.find_spec('resource') is None:
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log images per second of all processes, and on a CPU the peak memory.

    On a GPU MMEngine logs the memory itself.
    """

    # Runs after IterTimerHook, which has this priority too but comes first, and before LoggerHook.
    priority = 'NORMAL'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the rate over the window that the log line averages over."""
        hub = runner.message_hub
        if data_batch is None or 'train/time' not in hub.log_scalars:
            return
        seconds = hub.get_scalar('train/time').mean(runner.log_processor.window_size)
        num_images = len(data_batch['inputs']) * get_world_size()
        hub.update_scalar('train/images_per_s', num_images / seconds)
        if not torch.cuda.is_available():
            hub.update_scalar('train/memory', round(peak_memory_bytes() / _BYTES_PER_MB))
