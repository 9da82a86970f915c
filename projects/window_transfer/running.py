"""Run one cell of a study with MMEngine's Runner."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from logging import FileHandler
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.engine.launch import build_runner, save_config
from swinv2_mm.engine.work_dir import POINTER, checkpoint_in, checkpoints_in
from swinv2_mm.errors import UserError

from .configs import testing_config, training_config
from .plan import Cell, Study

_TOP1 = 'accuracy/top1'
_WEIGHTS, _SETTINGS, _RESULT = 'weights.pth', 'settings.json', 'result.json'


def run_cell(
    cell: Cell,
    *,
    study: Study,
    base: Config,
    work_dir: Path,
    num_workers: int,
    advance: Callable[[float], None],
) -> dict:
    """Run a cell, resuming from its newest checkpoint, and write its result.

    Args:
        cell: What to do. A training must be finished before its weights are tested or tuned.
        study: All settings.
        base: What ``base_config`` returned.
        work_dir: Work dir of the study.
        num_workers: Processes that load images.
        advance: Called now and then with the part that is done, from 0 to 1.

    Returns:
        What is written: ``top1_percent``, unless the cell only trains.

    Raises:
        UserError: If the config or an image does not fit.
    """
    folder = work_dir / cell.folder
    first = Cell('train', cell.bias, cell.seed, study.pairs[0])
    weights = work_dir / first.folder / _WEIGHTS
    how = {'study': study, 'base': base, 'num_workers': num_workers}
    share = study.training_share(cell)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / _SETTINGS, json.dumps(study.settings(cell), indent=2) + '\n')
    if cell.kind != 'test':
        start = None if cell.kind == 'train' else weights
        weights = folder / _WEIGHTS
        # There only once the training is finished.
        if not weights.exists():
            cfg = training_config(cell, **how)
            cfg.resume = bool(checkpoints_in(folder))
            source = checkpoint_in(folder) if cfg.resume else start
            cfg.load_from = None if source is None else str(source)
            _run(cfg, folder, Runner.train, lambda part: advance(part * share))
            checkpoint_in(folder).rename(weights)
            for path in (*folder.glob('epoch_*.pth'), folder / POINTER):
                path.unlink()
    result: dict = {'cell': str(cell)}
    if cell.kind != 'train':
        cfg = testing_config(cell, **how)
        cfg.load_from = str(weights)
        metrics = _run(
            cfg, folder / 'test', Runner.test, lambda part: advance(share + part * (1 - share))
        )
        result['top1_percent'] = float(metrics[_TOP1])
    atomic_write(folder / _RESULT, json.dumps(result, indent=2) + '\n')
    return result


def finished_result(cell: Cell, *, study: Study, work_dir: Path) -> dict | None:
    """Return what a finished cell wrote, or ``None``.

    Raises:
        UserError: If the folder was begun with other settings.
    """
    folder = work_dir / cell.folder
    settings = json.loads(json.dumps(study.settings(cell)))
    begun = folder / _SETTINGS
    if begun.exists():
        found = json.loads(begun.read_text())
        different = [name for name in settings if found.get(name) != settings[name]]
        if different:
            name = different[0]
            raise UserError(
                f'--work-dir: {folder} was begun with {name} {found.get(name)}, not '
                f'{settings[name]}; name another folder'
            )
    result = folder / _RESULT
    return json.loads(result.read_text()) if result.exists() else None


class _Progress(Hook):
    """Report the progress of a run."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self.advance = advance

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Report the progress, counted from the start of the training."""
        self.advance((runner.iter + 1) / runner.max_iters)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Report the progress."""
        self.advance((batch_idx + 1) / len(runner.test_dataloader))


def _run(
    cfg: Config, folder: Path, method: Callable[[Runner], dict], advance: Callable[[float], None]
) -> dict:
    """Build a Runner that logs to a file only, and call a method of it."""
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
        runner = build_runner(cfg, work_dir=folder)
    logger = runner.logger
    logger.handlers = [h for h in logger.handlers if isinstance(h, FileHandler)]
    try:
        save_config(cfg, runner)
        runner.register_hook(_Progress(advance), 'LOW')
        return method(runner)
    finally:
        for handler in logger.handlers:
            handler.close()
        del runner
        if torch.cuda.is_available():
            # A Runner is full of cycles; its memory is wanted for the next one.
            gc.collect()
