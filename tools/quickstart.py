# PYTHON_ARGCOMPLETE_OK
"""Train and test all three tasks on a small data set made on the spot: what `make demo` runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import FOLDERS, new_parser, parse

ROOT = Path(__file__).resolve().parent.parent


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/quickstart.py
        python tools/quickstart.py --iterations 20 --images 50
        """,
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=ROOT / 'work_dirs' / 'quickstart',
        metavar='FOLDER',
        help='where everything is written; default work_dirs/quickstart of the project',
    ).completer = FOLDERS
    parser.add_argument(
        '--iterations',
        type=int,
        metavar='N',
        help="training iterations per task; default: the configs' own, 300 to 700",
    )
    parser.add_argument('--images', type=int, default=600, metavar='N', help='training images')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

sys.path.append(str(ROOT))  # where projects/ lies

from projects.digits.dataset import make_digits_on_photos
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.engine.work_dir import checkpoint_in
from swinv2_mm.errors import UserError

POLL_S = 0.5
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Task:
    """One of the three demonstrations.

    Attributes:
        name: What it does.
        config: Path from the project's root.
        metrics: Name in MMEngine's log, name for people, and the score of guessing in percent.
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
        'configs/classification/swinv2-nano-w8_digits.py',
        (('accuracy/top1', 'top-1 accuracy', 10.0),),
    ),
    Task(
        'segmentation',
        'configs/segmentation/upernet_swinv2-nano-w8_digits.py',
        (('mIoU', 'mIoU', 7.2),),
    ),
    Task(
        'detection',
        'configs/detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
        (('coco/bbox_mAP_50', 'box AP50', 0.0), ('coco/segm_mAP_50', 'mask AP50', 0.0)),
    ),
)


def run_step(
    command: list[str], *, log: Path, environment: dict, on_poll: Callable[[], None]
) -> None:
    """Run a tool with its output in a log file, calling ``on_poll`` now and then.

    Raises:
        UserError: If the tool fails; with the end of its log.
    """
    with log.open('w') as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
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
    task: Task, args: argparse.Namespace, *, pretrained: Path | None, progress: Progress
) -> tuple[dict, Path]:
    """Train and test one task; returns its metrics and its weights.

    Args:
        task: What to do.
        args: The command line.
        pretrained: Weights that the backbone starts from.
        progress: Where to show how far it is.
    """
    folder = args.work_dir / task.name
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ}
    # Room for the other: threads that wait for a core spin, and cost more than they bring.
    environment.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // 2)))
    iterations = args.iterations or Config.fromfile(ROOT / task.config).train_cfg.max_iters
    options = []
    if pretrained is not None:
        init_cfg = f'dict(type="Pretrained", checkpoint={str(pretrained)!r})'
        options.append(f'model.backbone.init_cfg={init_cfg}')
    if args.iterations:
        options += [
            f'train_cfg.max_iters={iterations}',
            f'train_cfg.val_interval={iterations}',
            f'default_hooks.checkpoint.interval={iterations}',
        ]
    bar = progress.add_task(f'{task.name}: starting', total=iterations)
    started = time.time()

    def show() -> None:
        entry = latest_scalars(folder, started)
        if entry:
            done = entry.get('step', 0)
            text = f'{task.name}: training, loss {entry["loss"]:.3f}'
            progress.update(bar, completed=done, description=text)

    train = ['tools/train.py', task.config, '--work-dir', str(folder)]
    train += ['--cfg-options', *options] if options else []
    run_step(train, log=folder / 'train.log', environment=environment, on_poll=show)
    progress.update(bar, completed=iterations, description=f'{task.name}: testing and drawing')
    checkpoint = checkpoint_in(folder)
    scores = folder / 'scores.json'
    test = ['tools/test.py', task.config, str(checkpoint), '--work-dir', str(folder / 'test')]
    test += ['--out', str(scores), '--show-dir', str(folder / 'pictures')]
    run_step(test, log=folder / 'test.log', environment=environment, on_poll=lambda: None)
    seconds = time.time() - started
    progress.update(bar, description=f'{task.name}: done in {seconds:.0f} s')
    return json.loads(scores.read_text())['metrics'], checkpoint


def main() -> None:
    """Run the demonstration."""
    args = parse_args()
    args.work_dir = args.work_dir.absolute()
    os.environ['SWINV2_DATA'] = str(args.work_dir / 'data')
    console = Console()
    started = time.time()
    console.print('Making the data set (digits of scikit-learn on photographs of scikit-image) ...')
    make_digits_on_photos(args.work_dir / 'data' / 'digits', num_train=args.images)
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
        first = run_task(TASKS[0], args, pretrained=None, progress=progress)
        # One core each: neither can use a second one well.
        rest = [
            pool.submit(run_task, task, args, pretrained=first[1], progress=progress)
            for task in TASKS[1:]
        ]
        results = [first, *(future.result() for future in rest)]
    for task, (metrics, _) in zip(TASKS, results, strict=True):
        for key, name, chance in task.metrics:
            # CocoMetric counts from 0 to 1, the others in percent.
            score = metrics[key] * (100 if key.startswith('coco/') else 1)
            table.add_row(task.name, name, f'{score:.1f}', f'{chance:.1f}')
        found = sorted((args.work_dir / task.name / 'pictures').rglob('*.[jp][pn]g'))
        pictures.append((task.name, found))
    console.print(table)
    for name, found in pictures:
        if not found:
            raise UserError(f'{name} drew no pictures')
        console.print(f'{name}: {len(found)} pictures with predictions, such as', soft_wrap=True)
        console.print(f'  {found[0]}', soft_wrap=True)
    console.print(f'All in {(time.time() - started) / 60:.1f} minutes.')


if __name__ == '__main__':
    run_tool(main)
