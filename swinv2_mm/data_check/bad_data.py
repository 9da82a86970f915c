"""Apply the policy for corrupt data: raise, or skip and record."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Literal

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swinv2_mm.config.entries import read_entry
from swinv2_mm.errors import UserError

Policy = Literal['raise', 'skip']
# Name of the list, which is written to the work dir or to the folder of predictions.
SKIPPED_FILE = 'skipped.jsonl'


def policy_of(cfg: Config, part: str) -> Policy:
    """Return the policy of a config for corrupt data.

    Args:
        cfg: A config; its entry ``bad_data`` is a policy or one per part, by default ``raise``.
        part: ``train``, ``val``, ``test`` or ``infer``.

    Raises:
        UserError: If it is no policy.
    """
    return read_entry(cfg, 'bad_data')[part]


class SkippedList:
    """The record of skipped data: a line of JSON per file or annotation.

    Workers and processes append to it; the lines of earlier runs stay.

    Args:
        path: File that the list is written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._noted: set[tuple] = set()
        self._start = path.stat().st_size if path.exists() else 0

    def add(self, *, loader: str, file: str, reason: str, place: str = '') -> None:
        """Record a file, or an entry of it, once."""
        key = (loader, file, place)
        if key in self._noted:
            return
        self._noted.add(key)
        line = json.dumps({'loader': loader, 'file': file, 'place': place, 'reason': reason})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A line is one write, so that lines of several processes do not mix.
            with self.path.open('ab', buffering=0) as file_:
                file_.write(line.encode() + b'\n')
        except OSError as error:
            raise UserError(f'cannot write to {self.path}: {error.strerror}') from error

    def summary(self) -> str:
        """Summarise what all processes of this run skipped; empty if nothing."""
        if not self.path.exists():
            return ''
        with self.path.open('rb') as file:
            file.seek(self._start)
            lines = {line for line in file if line.endswith(b'\n')}
        counts = Counter(
            (entry['loader'], 'entries' if entry['place'] else 'files')
            for entry in map(json.loads, lines)
        )
        parts = [f'{loader}: {n} {what}' for (loader, what), n in sorted(counts.items())]
        return f"bad_data='skip' left out {', '.join(parts)}; list: {self.path}" if parts else ''


class SkippedSummaryHook(Hook):
    """Log at the end of a run how much data was skipped."""

    priority = 'VERY_LOW'

    def __init__(self, skipped: SkippedList) -> None:
        self._skipped = skipped

    def after_train(self, runner: Runner) -> None:
        """Log the counts."""
        if text := self._skipped.summary():
            runner.logger.warning(text)

    def after_test(self, runner: Runner) -> None:
        """Log the counts."""
        self.after_train(runner)
