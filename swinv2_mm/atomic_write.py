"""Atomic writes: a file appears under its name complete, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swinv2_mm.errors import UserError


def atomic_write(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file atomically; its folder is made, text is encoded as UTF-8.

    Raises:
        UserError: If it cannot be written; a file that was there before is unchanged.
    """
    with atomic_path(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` if the block succeeds.

    A pipe or a device, such as ``/dev/stdout``, is written to directly.

    Raises:
        UserError: If the file cannot be written; one that was there before is unchanged.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        # What a symbolic link leads to is replaced, not the link.
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f'.{target.name}.{os.getpid()}.part')
        try:
            yield part
            publish(part, target)
        finally:
            discard(part)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from error


def publish(part: Path, path: Path) -> None:
    """Rename a finished file, or folder, after its content has reached the disk.

    Raises:
        OSError: Such as for a file in the place of a folder, which stays.
    """
    for place in [*(part.iterdir() if part.is_dir() else ()), part]:
        _sync(place)
    if part.is_dir() and path.is_dir():
        # Nothing replaces a folder in one step.
        old = path.with_name(f'.{path.name}.old')
        path.replace(old)
        part.replace(path)
        shutil.rmtree(old)
    else:
        part.replace(path)
    _sync(path.parent)


def discard(part: Path) -> None:
    """Remove an unfinished file or folder, if it is there."""
    shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def _sync(place: Path) -> None:
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        # Some network file systems cannot sync folders; a file that did not arrive is an error.
        if not place.is_dir():
            raise
    finally:
        os.close(handle)
