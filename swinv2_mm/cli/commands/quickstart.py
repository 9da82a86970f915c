"""Train and test all three tasks on a small data set that is generated on the spot."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import FOLDERS, given, new_parser, parse
from swinv2_mm.errors import UserError
from swinv2_mm.shipped import add_projects_to_path, recipe

if TYPE_CHECKING:
    from rich.progress import Progress

POLL_S = 0.5
# Where no bar can be drawn, such as in a file.
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
    command: list[str], *, log: Path, environment: dict, on_poll: Callable[[], None]
) -> None:
    """Run a command with its output in a log file, calling ``on_poll`` now and then.

    Raises:
        UserError: If the command fails; with the end of its log.
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
                time.sleep(POLL_S)
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
) -> tuple[dict, Path]:
    """Train and test one task; returns its metrics and its weights.

    Args:
        task: What to do.
        work_dir: Folder for everything that is written.
        iterations: Training iterations; default those of the recipe.
        data: Folder with the data set.
        pretrained: Weights that the backbone starts from.
        progress: Where to show how far it is.
    """
    from mmengine.config import Config

    from swinv2_mm.engine.work_dir import checkpoint_in

    folder = work_dir / task.name
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'SWINV2_DATA': str(data)}
    # Room for the other: threads that wait for a core spin, and cost more than they bring.
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
    run_step(train, log=folder / 'train.log', environment=environment, on_poll=show)
    progress.update(bar, completed=total)
    say(f'{task.name}: testing and drawing')
    checkpoint = checkpoint_in(folder)
    scores = folder / 'scores.json'
    test = ['test', config, str(checkpoint), '--work-dir', str(folder / 'test')]
    test += ['--out', str(scores), '--show-dir', str(folder / 'pictures')]
    run_step(test, log=folder / 'test.log', environment=environment, on_poll=lambda: None)
    say(f'{task.name}: done in {time.time() - started:.0f} s')
    return json.loads(scores.read_text())['metrics'], checkpoint


def quickstart(
    *,
    work_dir: str | Path = 'work_dirs/quickstart',
    iterations: int | None = None,
    num_images: int = 600,
) -> dict[str, dict[str, float]]:
    """Train and test a classifier, a segmentor and a detector, and print their scores.

    Args:
        work_dir: Folder for data, logs, checkpoints and pictures.
        iterations: Training iterations per task; default those of the recipes.
        num_images: Training images.

    Returns:
        The metrics of each task.

    Raises:
        UserError: If one of the steps fails.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Table

    add_projects_to_path()
    try:
        from projects.digits.dataset import make_digits_on_photos
    except ImportError as error:
        raise UserError(
            f"{error}: the generated data needs pip install 'swinv2_mm[all]'"
        ) from error

    work_dir = Path(work_dir).absolute()
    data = work_dir / 'data'
    console = Console()
    started = time.time()
    console.print('Making the data set (digits of scikit-learn on photographs of scikit-image) ...')
    make_digits_on_photos(data / 'digits', num_train=num_images)
    table = Table(title='Scores on the validation images', title_justify='left')
    for heading in ('task', 'metric', 'score in %', 'guessing gives'):
        table.add_column(heading, justify='left' if heading in ('task', 'metric') else 'right')
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.completed:.0f}/{task.total:.0f}'),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    pictures = []
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor() as pool:
        run = partial(run_task, iterations=iterations, data=data, progress=progress)
        first = run(TASKS[0], work_dir, pretrained=None)
        # One core each: neither can use a second one well.
        rest = [pool.submit(run, task, work_dir, pretrained=first[1]) for task in TASKS[1:]]
        results = [first, *(future.result() for future in rest)]
    for task, (metrics, _) in zip(TASKS, results, strict=True):
        for key, name, chance in task.metrics:
            # CocoMetric counts from 0 to 1, the others in percent.
            score = metrics[key] * (100 if key.startswith('coco/') else 1)
            table.add_row(task.name, name, f'{score:.1f}', f'{chance:.1f}')
        found = sorted((work_dir / task.name / 'pictures').rglob('*.[jp][pn]g'))
        pictures.append((task.name, found))
    console.print(table)
    for name, found in pictures:
        if not found:
            raise UserError(f'{name} drew no pictures')
        console.print(f'{name}: {len(found)} pictures with predictions, such as', soft_wrap=True)
        console.print(f'  {found[0]}', soft_wrap=True)
    console.print(f'All in {(time.time() - started) / 60:.1f} minutes.')
    return {task.name: metrics for task, (metrics, _) in zip(TASKS, results, strict=True)}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s
        %(prog)s --iterations 20 --images 50
        """,
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/quickstart'),
        metavar='FOLDER',
        help='where everything is written',
    ).completer = FOLDERS
    parser.add_argument(
        '--iterations',
        type=int,
        metavar='N',
        help="training iterations per task; default: the recipes' own, 300 to 700",
    )
    parser.add_argument(
        '--images',
        dest='num_images',
        type=int,
        default=600,
        metavar='N',
        help='training images',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse(build_parser(), argv)
    from swinv2_mm.engine.launch import run_tool

    run_tool(lambda: quickstart(**given(quickstart, args)))
