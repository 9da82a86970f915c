"""Explain failures of the machine in one sentence: full disk, lost process, no package."""

from __future__ import annotations

import errno
import re
import traceback

import torch

from swinv2_mm.installed import missing_package

_GO_ON = 'what was saved is intact, go on with --resume'
_DISK = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), 'free some space')
_DISK |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), 'allow access')
_DEAD_WORKER = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*?)\.', re.DOTALL)
# How torch says it on a CPU, and NumPy.
_NO_MEMORY = re.compile(r"(?:can't|not enough|Unable to) allocate|DefaultCPUAllocator: not enough")
_ONE_VALUE = 'Expected more than 1 value per channel when training'
# Messages of gloo and NCCL about a lost process; neither raises a type of its own.
_LOST = re.compile(
    r'(?:gloo|nccl|TCPStore|socket).*?(?:closed by|reset by peer|broken pipe|tim(?:ed |e)?out'
    r'|refused|remote process|remoteerror)',
    re.IGNORECASE | re.DOTALL,
)


def explanation(error: BaseException | None) -> str | None:
    """Return what went wrong and how to fix it, or ``None`` if it may be a bug."""
    if isinstance(error, ImportError) and (message := missing_package(error)):
        return message
    while error is not None:
        if message := _explained(error):
            return message
        # torch reports the end of a worker in the middle of whatever is being done; what is in
        # the way may have made something else of it.
        error = error.__cause__ or error.__context__
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a lack of memory, of the GPU or the CPU."""
    # torch on a CPU raises no type of its own.
    is_typed = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_typed or _NO_MEMORY.search(str(error)) is not None


def _explained(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _DISK:
        where = f'{error.filename}: ' if error.filename else ''
        fix = f'{_DISK[error.errno]} or write to another folder'
        return f'{where}{error.strerror}; {fix}; {_GO_ON}'
    text = str(error)
    if is_out_of_memory(error):
        return (
            'out of memory: lower train_dataloader.batch_size (accumulate=N keeps the images per '
            'update), or set model.backbone.with_cp=True or precision=bf16; '
            'tools/analysis/memory.py finds settings that fit'
        )
    if worker := _dead_worker(error):
        return (
            f'{worker}: most often the machine has run out of memory, or of shared memory '
            f'(/dev/shm); lower num_workers or batch_size; {_GO_ON}'
        )
    if isinstance(error, ValueError) and text.startswith(_ONE_VALUE):
        return (
            'batch normalization cannot train on one image whose feature map is 1 x 1: set '
            'train_dataloader.batch_size to 2 or more (and drop_last=True, if a last batch of one '
            'image is left), or another norm_cfg, such as GN'
        )
    if isinstance(error, RuntimeError) and text.startswith('DataLoader timed out'):
        return f'{text.strip(" .")}: a worker hangs, such as on a network drive; {_GO_ON}'
    if isinstance(error, RuntimeError) and _LOST.search(text):
        reason = text.strip().splitlines()[0]
        return (
            f'another process of this job has died or does not answer ({reason}): its own '
            f'message says why; {_GO_ON}'
        )
    return None


def _dead_worker(error: BaseException) -> str | None:
    """Return that a worker of a data loader has died, and which if torch knows it."""
    if isinstance(error, RuntimeError) and (worker := _DEAD_WORKER.search(str(error))):
        return f'the data loader worker {worker[1]} {worker[2].strip()}'
    # Tensors are fetched from a worker: it may die first, and torch learn of it later.
    if isinstance(error, (ConnectionError, EOFError)) and any(
        frame.f_globals.get('__name__') == 'multiprocessing.resource_sharer'
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        return 'a data loader worker has died'
    return None
