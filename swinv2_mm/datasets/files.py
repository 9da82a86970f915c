"""Files of a data set, read without trust in what they are or how they are called."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from mmengine import fileio

from swinv2_mm.errors import DataError

# No image that a model takes is larger; what is, would fill the memory before it is refused.
MAX_IMAGE_BYTES = 2**30


class MissingFile(DataError):
    """There is no such file."""


class EmptyFile(DataError):
    """It has no bytes."""


def shown(path: object) -> str:
    """Return a file name that fits in one line of a terminal, whatever characters it holds."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def read_bytes(path: str, *, what: str = 'image', limit: int | None = MAX_IMAGE_BYTES) -> bytes:
    """Read a whole file; one on another machine (``s3://...``) through MMEngine.

    Args:
        path: Its name.
        what: It should be, for messages.
        limit: Most bytes; ``None`` takes any number.

    Raises:
        DataError: If it is missing, empty, too large, or no file: a pipe would be waited for, a
            device never ends.
    """
    name = f'{what} {shown(path)}'
    try:
        if '://' not in path:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                kind = 'folder' if stat.S_ISDIR(status.st_mode) else 'pipe, socket or device'
                raise DataError(f'{name} is a {kind}, not a file')
            if limit is not None and status.st_size > limit:
                raise DataError(f'{name} has {status.st_size:,} bytes; at most {limit:,} are read')
        content = fileio.get(path)
    except FileNotFoundError as error:
        raise MissingFile(f'{name} does not exist') from error
    except (OSError, ValueError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        # A ValueError: no file can have the name.
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise DataError(f'{name} cannot be read: {reason}') from error
    if not content:
        raise EmptyFile(f'{name} is empty (0 bytes)')
    return content


def read_json(path: str) -> Any:
    """Read a JSON file.

    Raises:
        DataError: If it cannot be read or is not JSON.
    """
    content = read_bytes(path, what='annotation file', limit=None)
    try:
        return json.loads(content)
    except RecursionError as error:
        reason = 'lists within lists within lists'
        raise DataError(f'annotation file {shown(path)} is not of COCO: {reason}') from error
    except ValueError as error:
        raise DataError(f'annotation file {shown(path)} is not JSON: {error}') from error
