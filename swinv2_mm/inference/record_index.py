"""Look up which files have records, in bounded memory however many files there are."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator

from swinv2_mm.output_names import OutputNames

from .sources import Source

_CACHE_KIB = 16384
_SCHEMA = f"""
PRAGMA cache_size = -{_CACHE_KIB};
PRAGMA journal_mode = OFF;
CREATE TABLE files (file BLOB PRIMARY KEY, name TEXT, position INTEGER) WITHOUT ROWID;
CREATE TABLE names (name TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE records (file BLOB PRIMARY KEY, part INTEGER, start INTEGER) WITHOUT ROWID;
BEGIN;
"""


class RecordIndex:
    """The files of a list, those that have records, and the names of what is written for them.

    A name depends on the list alone, not on which files fail or on who predicts first: a run that
    is resumed gives the same names.

    It is a temporary SQLite database, which SQLite moves from memory to a file of its own.
    """

    def __init__(self) -> None:
        # One thread lists, and another one merges after it.
        self._database = sqlite3.connect('', isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        self._names = OutputNames(_NameTable(self._database))
        self._length = 0

    def add_done(self, file: str, name: str) -> None:
        """Take a file that has a record, and its name; before any is listed."""
        row = os.fsencode(file), name
        self._database.execute('INSERT OR IGNORE INTO files VALUES (?, ?, NULL)', row)
        self._names.add(name)

    def enlist(self, source: Source) -> tuple[str, bool] | None:
        """List a file.

        Returns:
            Its name, and whether it is done; ``None`` if it is listed already.
        """
        key = os.fsencode(source.path)
        select = 'SELECT name, position FROM files WHERE file = ?'
        if (row := self._database.execute(select, (key,)).fetchone()) is None:
            name, is_done = self._names.reserve(source.name), False
        elif row[1] is None:
            name, is_done = row[0], True
        else:
            return None
        row = key, name, self._length
        self._database.execute('INSERT OR REPLACE INTO files VALUES (?, ?, ?)', row)
        self._length += 1
        return name, is_done

    def in_order(self, records: Iterable[tuple[str, int, int]]) -> Iterator[tuple[int, int]]:
        """Sort records by the list, those of files that are not listed last.

        Args:
            records: File, number of the part that holds its record, place in the part.

        Yields:
            Part and place, one record per file.
        """
        rows = ((os.fsencode(file), part, start) for file, part, start in records)
        self._database.executemany('INSERT OR IGNORE INTO records VALUES (?, ?, ?)', rows)
        yield from self._database.execute(
            'SELECT part, start FROM records LEFT JOIN files USING (file) '
            'ORDER BY position IS NULL, position, part, start'
        )


class _NameTable:
    """The mapping of ``OutputNames`` in a table."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def get(self, name: str, default: int = 0) -> int:
        select = 'SELECT number FROM names WHERE name = ?'
        row = self._database.execute(select, (name,)).fetchone()
        return default if row is None else row[0]

    def __setitem__(self, name: str, number: int) -> None:
        self._database.execute('INSERT OR REPLACE INTO names VALUES (?, ?)', (name, number))
