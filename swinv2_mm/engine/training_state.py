"""Files from which a training goes on: which there are, and what they may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import Logger
from pathlib import Path

import numpy as np
from mmengine.logging import HistoryBuffer

from swinv2_mm.checkpoint import CheckpointError
from swinv2_mm.checkpoint.reading import local_path, read_file
from swinv2_mm.checkpoint.sharded import REST, is_sharded
from swinv2_mm.errors import UserError

from .work_dir import checkpoints_in


def _statistic(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` while reading: a history refers to its statistics by it."""
    if owner is not HistoryBuffer or name not in ('current', 'max', 'mean', 'min'):
        raise UserError(f'it asks for {name} of {owner}')
    return getattr(owner, name)


# What a training checkpoint holds beside tensors and numbers: the logged history.
_SAFE_TYPES = [
    HistoryBuffer,
    (_statistic, 'builtins.getattr'),
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,
    np._core.multiarray.scalar,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.uint32, np.bool_)),
]


def read_checkpoint(filename: str, *, map_location: str | Callable = 'cpu') -> dict:
    """Read weights or a training checkpoint, without its config text, which MMEngine would run.

    Of a sharded one: what lies beside the tensors.

    Raises:
        CheckpointError: If it cannot be read, or holds no names.
    """
    folder = Path(filename)
    path = folder / REST if is_sharded(folder) else local_path(filename)
    checkpoint, _ = read_file(path, safe_globals=_SAFE_TYPES, map_location=map_location)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'checkpoint {filename} holds no weights')
    if isinstance(meta := checkpoint.get('meta'), dict):
        meta.pop('config', None)
    return checkpoint


def check_resumable(checkpoint: dict, *, filename: str) -> None:
    """Refuse what holds weights alone.

    Raises:
        CheckpointError: If a part that a training needs to go on is missing.
    """
    missing = [key for key in ('meta', 'message_hub', 'optimizer') if key not in checkpoint]
    if missing:
        raise CheckpointError(
            f'{filename} holds no {missing[0]}, so no training can go on from it; to start '
            'from its weights set load_from'
        )


def newest_readable(folders: Iterable[str | Path], *, logger: Logger) -> Path | None:
    """Find the checkpoint that was saved last and from which a training can go on.

    What is passed over is logged with the reason.
    """
    files = {path for folder in folders for path in checkpoints_in(Path(folder))}
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            check_resumable(read_checkpoint(str(path)), filename=path.name)
        except CheckpointError as error:
            logger.warning(f'Not resumed from {path.name}: {error}')
        else:
            return path
    return None
