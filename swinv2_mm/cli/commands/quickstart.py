"""Train and test all three tasks on a small data set that is generated on the spot."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from swinv2_mm.cli.arguments import FOLDERS, call, new_parser, run_command
from swinv2_mm.cli.demonstrations import TASKS, run_task
from swinv2_mm.cli.running import exit_on_sigterm
from swinv2_mm.errors import UserError
from swinv2_mm.shipped import add_projects_to_path


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
    add_projects_to_path()
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.table import Table

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
    pictures, stopped = [], threading.Event()
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor() as pool:
        run = partial(
            run_task, iterations=iterations, data=data, progress=progress, stopped=stopped
        )
        try:
            first = run(TASKS[0], work_dir, pretrained=None)
            # One core each: neither can use a second one well.
            rest = [pool.submit(run, task, work_dir, pretrained=first[1]) for task in TASKS[1:]]
            results = [first, *(future.result() for future in rest)]
        except BaseException:
            # The pool waits for what it runs.
            stopped.set()
            raise
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
    """Run the command; SIGTERM ends what it started."""
    with exit_on_sigterm():
        run_command(build_parser(), argv, lambda args: call(quickstart, args))
