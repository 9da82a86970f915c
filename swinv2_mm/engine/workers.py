"""Shield data loader workers from signals to the job, and end them with the training."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable
from functools import partial

from torch.utils.data import DataLoader

# Signals on which a training saves and exits; its loaders have to work on until then.
STOP_SIGNALS = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, 'SIGUSR1') else []))

_PR_SET_PDEATHSIG = 1
# Settings that torch's DataLoader refuses without workers, where they mean nothing.
_FOR_WORKERS = ('persistent_workers', 'prefetch_factor', 'timeout')


def without_idle_settings(loader: dict) -> dict:
    """Return the config of a loader, without settings of workers if it has none."""
    if loader.get('num_workers', 0):
        return loader
    return {key: value for key, value in loader.items() if key not in _FOR_WORKERS}


def shield_workers(loader: DataLoader) -> None:
    """Have data loader workers ignore the job's signals, and exit with their parent.

    Otherwise they never end if the training is killed while they hand over a batch.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(initialise: Callable[[int], object] | None, worker_id: int) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if initialise is not None:
        initialise(worker_id)


def end_workers() -> None:
    """End all workers, whatever they wait for: an exit would wait for them."""
    if not (children := multiprocessing.active_children()):
        return
    # torch's handler would report the end of a worker as an error; Windows has no such signal.
    has_signal = hasattr(signal, 'SIGCHLD')
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if has_signal else None
    for child in children:
        child.kill()
        child.join(1)
    if has_signal:
        signal.signal(signal.SIGCHLD, previous)


# Runs before multiprocessing's own handler, which would wait for workers that ignore its signal.
atexit.register(end_workers)
