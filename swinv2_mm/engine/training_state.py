"""Find and validate the checkpoints that a training can be resumed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from logging import Logger
from pathlib import Path

from swinv2_mm.checkpoint import CheckpointError
from swinv2_mm.checkpoint.reading import Weights, open_weights, pointed_at
from swinv2_mm.checkpoint.sharded import REST, is_sharded
from swinv2_mm.checkpoint.weight_files import read_file

from .work_dir import checkpoints_in


def open_checkpoint(filename: str, *, map_location: str | Callable = 'cpu') -> Weights:
    """Open weights or a training checkpoint, without its config text, which MMEngine would run.

    From a sharded checkpoint, only what lies beside the tensors is read.

    Raises:
        CheckpointError: If it cannot be read, or holds no names.
    """
    folder = pointed_at(Path(filename))
    if is_sharded(folder):
        content, _ = read_file(folder / REST, map_location=map_location)
        if not isinstance(content, dict):
            raise CheckpointError(f'{folder / REST} is not the rest of a sharded checkpoint')
        opened = Weights(content, {}, {}, str(folder))
    else:
        opened = open_weights(filename, map_location=map_location)
    if isinstance(meta := opened.content.get('meta'), dict):
        meta.pop('config', None)
    return opened


def check_resumable(checkpoint: dict, *, filename: str) -> None:
    """Raise if a file holds weights alone, without training state.

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

    What is skipped is logged with the reason.
    """
    files = {path for folder in folders for path in checkpoints_in(Path(folder))}
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            check_resumable(open_checkpoint(str(path)).content, filename=path.name)
        except CheckpointError as error:
            logger.warning(f'Not resumed from {path.name}: {error}')
        else:
            return path
    return None
