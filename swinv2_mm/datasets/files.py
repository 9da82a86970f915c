"""Read files of a data set safely, whatever their content and name."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from mmengine import fileio

from swinv2_mm.errors import DataError

# No image for a model is larger; a larger file would fill the memory before it is refused.
MAX_IMAGE_BYTES = 2**30


class FileFault(DataError):
    """A file cannot be used.

    Attributes:
        kind: ``missing``, ``zero-bytes``, ``unreadable``, ``truncated``, or ``mode`` of a label map
            in colour.
        detail: The reason, without the name of the file.
    """

    def __init__(self, message: str, *, kind: str = 'unreadable', detail: str = '') -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail


def shown(path: object) -> str:
    """Return a file name that fits in one line of a terminal, whatever characters it holds."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def read_bytes(path: str, *, what: str = 'image', limit: int | None = MAX_IMAGE_BYTES) -> bytes:
    """Read a whole file; one on another machine (``s3://...``) through MMEngine.

    Args:
        path: Its name.
        what: What the file should be, for messages.
        limit: Most bytes; ``None`` takes any number.

    Raises:
        FileFault: If it is missing, empty, too large, or no file: a pipe would be waited for, a
            device never ends.
    """
    name = f'{what} {shown(path)}'
    reason = ''
    try:
        if '://' not in path:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                kind = 'folder' if stat.S_ISDIR(status.st_mode) else 'pipe, socket or device'
                reason = f'is a {kind}, not a file'
            elif limit is not None and status.st_size > limit:
                reason = f'has {status.st_size:,} bytes; at most {limit:,} are read'
        content = b'' if reason else fileio.get(path)
    except FileNotFoundError:
        raise FileFault(f'{name} does not exist', kind='missing') from None
    except (OSError, ValueError, MemoryError) as error:
        # A ValueError: no file can have the name.
        cause = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        reason = f'cannot be read: {cause}'
    if reason:
        raise FileFault(f'{name} {reason}', detail=reason)
    if not content:
        raise FileFault(f'{name} is empty (0 bytes)', kind='zero-bytes')
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


def read_lines(path: str) -> list[str]:
    """Read the lines of a text file.

    Raises:
        DataError: If it cannot be read or is not UTF-8.
    """
    try:
        return read_bytes(path, what='annotation file', limit=None).decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f'annotation file {shown(path)} is not a text in UTF-8') from error
