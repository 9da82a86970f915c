"""Check a file of weights before anything is loaded from it."""

from __future__ import annotations

import os
import stat
import zipfile
from io import BytesIO
from pathlib import Path

from .errors import CheckpointError
from .pickle_scan import CostlyPickleError, check_pickles

_CHUNK_BYTES = 1 << 20
_LEAST_SPARSE_BYTES = 1 << 20
# A compressing file system may leave zeros out, and weights are mostly not zero.
_LEAST_WRITTEN = 1 / 8
_MOST_EXTENTS = 10_000
_MOST_ENTRIES = 200_000
_MOST_PICKLE_BYTES = 1 << 30
_PICKLE = 'data.pkl'


def check_file(path: Path) -> None:
    """Check that a path is a regular file whose content may be weights.

    Raises:
        CheckpointError: If it is missing, a pipe or a device, empty, a web page, a pointer of Git
            LFS, or mostly a hole (a sparse file).
    """
    check_regular(path)
    try:
        with path.open('rb') as file:
            start = file.read(64).lstrip().lower()
            is_written = _is_written(file.fileno())
    except OSError as error:
        raise CheckpointError(f'cannot read {path}: {error.strerror}') from None
    if not start and not path.stat().st_size:
        raise CheckpointError(f'{path} is empty')
    if not is_written:
        raise CheckpointError(
            f'{path} was never written for the most part (a sparse file), as unfinished downloads '
            'are: fetch it again'
        )
    if is_web_page(start):
        raise CheckpointError(f'{path} is a web page, not weights: download it again')
    if start.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a pointer of Git LFS: fetch the file itself')


def check_regular(path: Path, *, what: str = '') -> None:
    """Check that a path is a regular file: reading a pipe may block, and a device never ends.

    Args:
        path: The file.
        what: What the file is, for messages.

    Raises:
        CheckpointError: If it is something else, or missing.
    """
    name = f'{what} {path}'.lstrip()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise CheckpointError(f'cannot read {name}: {error.strerror}') from None
    except ValueError as error:
        raise CheckpointError(f'no file can be called {path}: {error}') from None
    if not stat.S_ISREG(mode):
        kind = 'folder' if stat.S_ISDIR(mode) else 'pipe, socket or device'
        raise CheckpointError(f'{name} is a {kind}, not a file')


def is_web_page(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page, sent in place of the file."""
    return start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml'))


def _is_written(descriptor: int) -> bool:
    """Whether most of a file is content, not holes that take no space on the disk."""
    size = os.fstat(descriptor).st_size
    if size < _LEAST_SPARSE_BYTES:
        return True
    written = end = 0
    try:
        for _ in range(_MOST_EXTENTS):
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            written += end - start
            if written > _LEAST_WRITTEN * size:
                return True
    except OSError:
        # No more content, unless the file system does not know.
        return end == 0 and written == 0 and os.fstat(descriptor).st_blocks > 0
    return False


def check_pickle_file(path: Path) -> None:
    """Check a file of ``torch.save``: checksums, which torch does not check, and cost of loading.

    Raises:
        CheckpointError: If loading it would hang or fill the memory.
        Exception: If it is damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        else:
            with path.open('rb') as file:
                check_pickles(file, num_bytes=path.stat().st_size, is_legacy=True)
    except CostlyPickleError as error:
        raise CheckpointError(f'{path} was refused: {error}; no training program does') from None


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch finds entries whatever the case of their names.
        if len({entry.filename.lower() for entry in entries}) < len(entries):
            raise CheckpointError(f'{path} was refused: entries in it have the same name')
        if len(entries) > _MOST_ENTRIES:
            raise CheckpointError(f'{path} was refused: it has more than {_MOST_ENTRIES:,} entries')
        num_bytes = sum(entry.file_size for entry in entries)
        if num_bytes > path.stat().st_size:
            raise CheckpointError(
                f'{path} was refused: it would unpack to {num_bytes:,} bytes, more than it has '
                'itself; torch.save compresses nothing'
            )
        for entry in entries:
            # 0: written without, by torch.serialization.set_crc32_options(False).
            if entry.CRC:
                with archive.open(entry) as content:
                    while content.read(_CHUNK_BYTES):
                        pass
            if entry.filename.lower().rpartition('/')[2] == _PICKLE:
                if entry.file_size > _MOST_PICKLE_BYTES:
                    raise CheckpointError(f'{path} was refused: {_PICKLE} in it is too large')
                check_pickles(BytesIO(archive.read(entry)), num_bytes=entry.file_size)
