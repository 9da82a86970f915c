"""Run the demonstration of a task: a training and a test, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.errors import UserError
from swinv2_mm.shipped import recipe

if TYPE_CHECKING:
    from rich.progress import Progress

POLL_S = 0.5
# Interval of progress lines where no bar can be drawn, such as in a file.
LINE_EVERY_S = 20
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Task:
    """One of the three demonstrations.

    Attributes:
        name: What it does.
        config: Name of the recipe.
        metrics: Name in MMEngine's log, displayed name, and the score of guessing in percent.
    """

    name: str
    config: str
    metrics: tuple[tuple[str, str, float], ...]


# Guessing: ten classes of equal size; a segmentor that calls every pixel photograph gets that one
# of 11 classes right, with an IoU of 79 %; a detector without a clue finds nothing.
# The classifier comes first: the others start from its backbone, as one does with weights
# trained on ImageNet.
TASKS = (
    Task(
        'classification',
        'classification/swinv2-nano-w8_digits.py',
        (('accuracy/top1', 'top-1 accuracy', 10.0),),
    ),
    Task(
        'segmentation',
        'segmentation/upernet_swinv2-nano-w8_digits.py',
        (('mIoU', 'mIoU', 7.2),),
    ),
    Task(
        'detection',
        'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
        (('coco/bbox_mAP_50', 'box AP50', 0.0), ('coco/segm_mAP_50', 'mask AP50', 0.0)),
    ),
)


def run_step(
    command: list[str],
    *,
    log: Path,
    environment: dict,
    on_poll: Callable[[], None],
    stopped: threading.Event,
) -> None:
    """Run a command with its output in a log file, calling ``on_poll`` now and then.

    Raises:
        UserError: If the command fails, or ends because ``stopped`` was set; with the end of its
            log.
    """
    with log.open('w') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', 'swinv2_mm', *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            while process.poll() is None:
                on_poll()
                if stopped.wait(POLL_S):
                    break
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        tail = '\n'.join(log.read_text().splitlines()[-LOG_LINES_SHOWN:])
        print(tail, file=sys.stderr)
        raise UserError(f'{" ".join(command[:2])} failed; its whole output is in {log}')


def latest_scalars(work_dir: Path, since: float) -> dict:
    """Return the last training entry that MMEngine wrote to ``work_dir`` after ``since``."""
    for path in sorted(work_dir.glob('*/vis_data/scalars.json'), reverse=True):
        if path.stat().st_mtime < since:
            break
        for line in reversed(path.read_text().splitlines()):
            entry = json.loads(line) if line.endswith('}') else {}
            if 'loss' in entry:
                return entry
    return {}


def run_task(
    task: Task,
    work_dir: Path,
    *,
    iterations: int | None,
    data: Path,
    pretrained: Path | None,
    progress: Progress,
    stopped: threading.Event,
) -> tuple[dict, Path]:
    """Train and test one task; returns its metrics and its weights.

    Args:
        task: What to do.
        work_dir: Folder for everything that is written.
        iterations: Training iterations; default those of the recipe.
        data: Folder with the data set.
        pretrained: Weights that the backbone starts from.
        progress: Where to show how far it is.
        stopped: Set from outside to end it.
    """
    from mmengine.config import Config

    from swinv2_mm.engine.work_dir import checkpoint_in

    folder = work_dir / task.name
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'SWINV2_DATA': str(data)}
    # Two demonstrations share the cores: threads that spin while they wait only cost time.
    environment.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // 2)))
    config, options = recipe(task.config), []
    if pretrained is not None:
        init_cfg = f'dict(type="Pretrained", checkpoint={str(pretrained)!r})'
        options.append(f'model.backbone.init_cfg={init_cfg}')
    if iterations:
        options += [
            f'train_cfg.max_iters={iterations}',
            f'train_cfg.val_interval={iterations}',
            f'default_hooks.checkpoint.interval={iterations}',
        ]
    total = iterations or Config.fromfile(config).train_cfg.max_iters
    bar = progress.add_task(f'{task.name}: starting', total=total)
    started = time.time()

    def say(text: str) -> None:
        progress.update(bar, description=text)
        if not progress.console.is_terminal:
            progress.console.print(f'{time.strftime("%H:%M:%S")}  {text}', highlight=False)

    printed = started

    def show() -> None:
        nonlocal printed
        entry = latest_scalars(folder, started)
        if entry:
            done = entry.get('step', 0)
            text = f'{task.name}: training, loss {entry["loss"]:.3f}'
            progress.update(bar, completed=done, description=text)
            if not progress.console.is_terminal and time.time() - printed > LINE_EVERY_S:
                printed = time.time()
                say(f'{text}, {done}/{total} iterations')

    train = ['train', config, '--work-dir', str(folder)]
    train += ['--cfg-options', *options] if options else []
    log = folder / 'train.log'
    run_step(train, log=log, environment=environment, on_poll=show, stopped=stopped)
    progress.update(bar, completed=total)
    say(f'{task.name}: testing and drawing')
    checkpoint = checkpoint_in(folder)
    scores = folder / 'scores.json'
    test = ['test', config, str(checkpoint), '--work-dir', str(folder / 'test')]
    test += ['--out', str(scores), '--show-dir', str(folder / 'pictures')]
    log = folder / 'test.log'
    run_step(test, log=log, environment=environment, on_poll=lambda: None, stopped=stopped)
    say(f'{task.name}: done in {time.time() - started:.0f} s')
    return json.loads(scores.read_text())['metrics'], checkpoint
