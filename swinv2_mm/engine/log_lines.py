"""Format the lines of a run: short ones for the console, MMEngine's full ones for the log file."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor, Runner

from .metric_names import OF_ONE_CLASS

WIDTH = 120
# Losses that the console shows beside their sum; the file has all.
_NUM_PARTS = 3
# Stages of a cascade and layers of a decoder: their losses of one kind are added up.
_STAGE = re.compile(r'^(s|d|enc|dn|d\d+\.dn)_?\d*\.')
# Metrics of boxes and of masks have rows of their own.
_KIND = re.compile(r'(?:.*/)?(?:(bbox|segm)_)?.*')
_HEAD = re.compile(r'\w+\(\w+\)\s*(\[[^]]*\])+')
_NO_OBJECTS = -1  # CocoMetric, of a size that no object has
# As wide as the time before each line.
INDENT = ' ' * 10


class LogLine(str):
    """A line of the log file that the console shows shorter.

    Attributes:
        short: What the console shows.
    """

    short: str

    def __new__(cls, whole: str, *, short: str) -> LogLine:
        """Create a line from its two forms."""
        line = super().__new__(cls, whole)
        line.short = short
        return line


@LOG_PROCESSORS.register_module()
class ShortLogProcessor(LogProcessor):
    """MMEngine's ``LogProcessor``, with a form of each line that fits in 120 columns.

    The short form of a training line has step, learning rate, remaining time, loss with its largest
    parts, images/s and memory; that of a validation has its metrics, those marked that are the best
    so far. Both keep MMEngine's words, for scripts that read them. Scalars, files and backends
    receive what they do without it.
    """

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        """Format the line of an iteration.

        Args:
            runner: The Runner.
            batch_idx: Index of the batch in the current loop.
            mode: ``train``, ``val`` or ``test``.

        Returns:
            The scalars, and the line.
        """
        tag, whole = super().get_log_after_iter(runner, batch_idx, mode)
        first, last = [_head(whole)], []
        if 'lr' in tag:
            first.append(f'lr: {tag["lr"]:.{self.num_digits}e}')
        if (seconds := runner.message_hub.runtime_info.get('eta')) is not None:
            first.append(f'eta: {datetime.timedelta(seconds=int(seconds))}')
        if 'images_per_s' in tag:
            last.append(f'{tag["images_per_s"]:.1f} images/s')
        if 'memory' in tag:
            kind = 'GPU' if torch.cuda.is_available() else 'RAM'
            last.append(f'{kind} {tag["memory"] / 1024:.1f} GB')
        losses = _losses(tag) if mode == 'train' and 'loss' in tag else [[]]
        lines = ['  '.join([*first, *loss, *last]) for loss in losses]
        short = next((line for line in lines if len(INDENT) + len(line) <= WIDTH), lines[-1])
        return tag, LogLine(whole, short=short)

    def get_log_after_epoch(
        self, runner: Runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        """Format the metrics of a validation or test.

        Args:
            runner: The Runner.
            batch_idx: Index of the last batch.
            mode: ``val`` or ``test``.
            with_non_scalar: Whether to return values that are no numbers too.

        Returns:
            The scalars, and the line.
        """
        tag, whole = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        history = runner.message_hub.log_scalars
        groups: dict[str, list[str]] = {}
        for name, value in tag.items():
            name = name.removeprefix(f'{mode}/')
            if name in ('time', 'data_time') or name.endswith(OF_ONE_CLASS):
                continue  # CocoMetric has printed a table of these
            if not isinstance(value, (int, float)) or value == _NO_OBJECTS:
                continue
            earlier = history[f'{mode}/{name}'].data[0][:-1] if f'{mode}/{name}' in history else ()
            is_best = mode == 'val' and len(earlier) > 0 and value > max(earlier)
            kind = _KIND.fullmatch(name)[1]
            text = f'{name}: {value:.{self.num_digits}f}{" (best)" if is_best else ""}'
            groups.setdefault(kind, []).append(text)
        return tag, LogLine(whole, short=_rows(_head(whole), groups.values()))


def _head(line: str) -> str:
    """Return MMEngine's words for the step: ``Iter(train) [ 10/300]``."""
    return _HEAD.match(line)[0]


def _losses(tag: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the loss with ever fewer of its largest parts, those of like stages added up."""
    parts: dict[str, float] = {}
    for name, value in tag.items():
        if 'loss' in name and name != 'loss':
            kind = _STAGE.sub('', name).replace('loss_', '').removesuffix('_loss')
            parts[kind] = parts.get(kind, 0.0) + value
    order = sorted(parts, key=lambda kind: -parts[kind])
    for number in range(_NUM_PARTS if len(parts) > 1 else 0, 0, -1):
        text = ', '.join(f'{kind} {parts[kind]:.3g}' for kind in parts if kind in order[:number])
        yield [f'loss: {tag["loss"]:.4f} ({text})']
    yield [f'loss: {tag["loss"]:.4f}']


def _rows(head: str, groups: Iterable[list[str]]) -> str:
    """Lay out metrics in rows behind the step, each group from a new one on."""
    margin = ' ' * (len(head) + 2)
    rows = []
    for items in groups:
        row = ''
        for item in items:
            if row and len(INDENT) + len(margin) + len(row) + len(item) > WIDTH:
                rows.append(row.rstrip())
                row = ''
            row += f'{item}  '
        rows.append(row.rstrip())
    lines = [f'{margin if number else f"{head}  "}{row}' for number, row in enumerate(rows)]
    return f'\n{INDENT}'.join(lines or [head])
