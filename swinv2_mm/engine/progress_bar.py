"""Show a progress bar below the log lines on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .console import has_colours

_REFRESH_S = 0.2


@contextmanager
def progress_bar(runner: Runner) -> Iterator[None]:
    """Show how far a run is, where the standard output is a terminal; otherwise do nothing.

    Args:
        runner: The Runner.
    """
    if not (is_main_process() and has_colours()):
        yield
        return
    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    # Drawn by this thread only: a second one could hold a lock while a data worker is forked.
    progress = Progress(
        *columns, TimeRemainingColumn(), console=Console(), transient=True, auto_refresh=False
    )
    hook = _ProgressHook(progress)
    with progress:
        runner.register_hook(hook, 'VERY_LOW')
        # While the bar is shown, lines must go through rich's replacement of the standard output.
        replaced = [
            (handler, handler.setStream(sys.stdout))
            for handler in runner.logger.handlers
            if type(handler) is logging.StreamHandler
        ]
        try:
            yield
        finally:
            for handler, stream in replaced:
                handler.setStream(stream)
            runner.hooks.remove(hook)


class _ProgressHook(Hook):
    """Hook that advances the bar of the loop that runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, Any] = {}
        self._drawn_s = 0.0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the bar of the training."""
        self._show('train', runner.iter + 1, runner.max_iters)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the bar of a validation."""
        self._show('val', batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the bar of a test."""
        self._show('test', batch_idx + 1, len(runner.test_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Remove the bar of a validation."""
        if (bar := self._bars.pop('val', None)) is not None:
            self._progress.remove_task(bar)

    def _show(self, mode: str, done: int, total: int) -> None:
        if mode not in self._bars:
            self._bars[mode] = self._progress.add_task(mode, total=total)
        self._progress.update(self._bars[mode], completed=done)
        if time.monotonic() - self._drawn_s > _REFRESH_S:
            self._progress.refresh()
            self._drawn_s = time.monotonic()
