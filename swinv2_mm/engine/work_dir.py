"""Find the config and checkpoints in the work dirs of trainings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from swinv2_mm.checkpoint import CheckpointError
from swinv2_mm.checkpoint.reading import POINTER, pointed_at
from swinv2_mm.errors import UserError

_BEST = 'best_'


def config_in(work_dir: Path) -> Path:
    """Find the config that a training left in its work dir.

    Raises:
        UserError: If there is none, or more than one.
    """
    if not work_dir.is_dir():
        raise UserError(f'work dir {work_dir} does not exist')
    found = sorted(work_dir.glob('*.py'))
    if len(found) != 1:
        many = f'{len(found)} configs ({", ".join(path.name for path in found)})'
        raise UserError(
            f'{work_dir} holds {many if found else "no config"}: '
            f'{"say which with --config" if found else "is it the work dir of a training?"}'
        )
    return found[0]


def checkpoints_in(work_dir: Path) -> list[Path]:
    """List the checkpoints in a work dir, the newest first, without those being written."""
    found = [path for path in work_dir.glob('*.pth') if not path.name.startswith('.')]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def checkpoint_in(work_dir: Path, *, which: Literal['newest', 'best'] = 'newest') -> Path:
    """Find a checkpoint of a training, also when the folder was moved.

    Args:
        work_dir: Work dir of the training.
        which: ``newest`` is the one that ``last_checkpoint`` names; ``best`` the one with the best
            score, and the newest if the training kept none.

    Raises:
        UserError: If there is none.
    """
    found = checkpoints_in(work_dir)
    best = [path for path in found if path.name.startswith(_BEST)]
    if which == 'best' and best:
        return best[0]
    with suppress(CheckpointError):
        if (newest := pointed_at(work_dir)) != work_dir:
            return newest
    if not found:
        raise UserError(f'{work_dir} holds no checkpoint; say which with --checkpoint')
    return next((path for path in found if path not in best), found[0])


def work_dirs_below(folder: Path) -> list[Path]:
    """List the work dirs of all trainings in a folder that have saved a checkpoint."""
    return sorted(pointer.parent for pointer in folder.rglob(POINTER))
