"""Name output files after input files so that no two names meet, on any file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePath
from typing import Protocol

# Suffixes of written files: a folder of such a name could be a file of another image.
SUFFIXES = ('.jpg', '.png', '.mp4', '.jsonl', '.json')
# File systems take 255 bytes: room for a number, a suffix, and what a temporary file adds.
_MAX_BYTES = 200
_HASH_LENGTH = 8
# What Windows or a shared folder refuses, and control characters.
_REFUSED = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_RESERVED = re.compile(r'(con|prn|aux|nul|com\d|lpt\d)(\..*)?', re.IGNORECASE)


class NameTable(Protocol):
    """Where names are kept: a dictionary, or what stands for one."""

    def get(self, name: str, default: int) -> int:
        """Return the number of a name."""

    def __setitem__(self, name: str, number: int) -> None: ...


class OutputNames:
    """The names that are taken; two that differ in case or Unicode form only are one.

    Args:
        taken: Receives each name with the last number that was put behind it, 1 for none.
    """

    def __init__(self, taken: NameTable | None = None) -> None:
        self._taken: NameTable = {} if taken is None else taken

    def add(self, name: str) -> None:
        """Take a name that is in use already."""
        key = _key(name)
        if not self._taken.get(key, 0):
            self._taken[key] = 1

    def reserve(self, wanted: str) -> str:
        """Return a free name like ``wanted``, and take it: ``a``, ``a-2``, ...

        Args:
            wanted: Wanted name, with ``/`` between folders, without a suffix; may lead anywhere.
        """
        # "a/.." leads out of the folder.
        parts = [part for part in PurePath(wanted).parts if part not in ('..', '/')] or ['_']
        *folders, last = map(_portable, parts)
        folders = [f'{name}_' if name.lower().endswith(SUFFIXES) else name for name in folders]
        name = base = '/'.join([*folders, last])
        if number := self._taken.get(_key(base), 0):
            is_taken = True
            while is_taken:
                number += 1
                name = f'{base}-{number}'
                is_taken = bool(self._taken.get(_key(name), 0))
            self._taken[_key(base)] = number
        self.add(name)
        return name


def _portable(part: str) -> str:
    """Return a name of a file or folder that every file system takes."""
    name = _REFUSED.sub('_', part.encode(errors='replace').decode()).rstrip(' .') or '_'
    if _RESERVED.fullmatch(name):
        name = f'_{name}'
    if len(name.encode()) > _MAX_BYTES:
        mark = hashlib.sha256(part.encode(errors='replace')).hexdigest()[:_HASH_LENGTH]
        kept = name.encode()[: _MAX_BYTES - _HASH_LENGTH - 1].decode(errors='ignore')
        name = f'{kept}~{mark}'
    return name


def _key(name: str) -> str:
    return unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', name).casefold())
