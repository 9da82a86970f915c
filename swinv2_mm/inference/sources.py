"""Expand files, folders and a list on standard input to images and videos."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swinv2_mm.datasets.image_files import IMAGE_SUFFIXES
from swinv2_mm.errors import UserError

VIDEO_ENDINGS = frozenset('.mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg'.split())


@dataclass(frozen=True)
class Source(os.PathLike):
    """A file to predict for.

    Attributes:
        path: As given, or found in a given folder.
        name: Name of the files written for it, without a suffix: its place in the given folder.
    """

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        """Whether its suffix is that of a video."""
        return Path(self.path).suffix.lower() in VIDEO_ENDINGS

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


def passed_over(inputs: Iterable[str], *, results: Container[str] = ()) -> Counter[str]:
    """Count the files of folders that ``find_sources`` leaves out, by suffix."""
    counts: Counter[str] = Counter()
    for given in inputs:
        for here, files in _walk(given, results):
            names = [name for name in files if not _is_read(name)]
            counts.update(Path(here, name).suffix.lower() or 'no suffix' for name in names)
    return counts


def _is_read(name: str) -> bool:
    return Path(name).suffix.lower() in {*IMAGE_SUFFIXES, *VIDEO_ENDINGS}


def find_sources(
    inputs: Sequence[str], *, lines: Iterable[str] = (), results: Container[str] = ()
) -> Iterator[Source]:
    """List the images and videos meant, those in folders in the order of their names.

    A file is listed whatever its name and whether it exists or not; of a folder and those in it,
    only what has the name of an image or a video, and is not hidden.

    Args:
        inputs: Files and folders; ``-`` stands for the ``lines``.
        lines: Names of files and folders.
        results: Real paths of folders that are left out, because predictions are written there.

    Raises:
        UserError: If there is nothing in a folder.
    """
    for given in inputs:
        if given == '-':
            for line in lines:
                if line.strip():
                    yield from find_sources([line.rstrip('\r\n')], results=results)
        elif os.path.isdir(given):
            is_empty = True
            for here, files in _walk(given, results):
                for path in (Path(here, name) for name in files if _is_read(name)):
                    is_empty = False
                    yield Source(str(path), str(path.relative_to(given).with_suffix('')))
            if is_empty:
                raise UserError(f'folder {given} holds no images or videos')
        else:
            yield Source(given, Path(given).stem)


def _walk(folder: str, results: Container[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and those in it, each with the names of its files; what is hidden is not."""
    for here, folders, files in os.walk(folder):
        paths = {name: os.path.realpath(os.path.join(here, name)) for name in folders}
        folders[:] = sorted(
            name for name in folders if not name.startswith('.') and paths[name] not in results
        )
        yield here, sorted(name for name in files if not name.startswith('.'))
