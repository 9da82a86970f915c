# PYTHON_ARGCOMPLETE_OK
"""Compare position biases at larger windows than they were trained at (paper table 1)."""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import FOLDERS, add_cfg_options, new_parser, parse

_NUM_DIGITS = 10
# A mirrored digit is another sign, and a cropped one may be.
_DIGITS_SETTINGS = {
    'pairs': ['64/4', '96/6', '128/8', '192/12'],
    'epochs': 6,
    'fine_tune_epochs': 1,
    'batch_size': 32,
    'min_crop': 1.0,
    'test_crop': 1.0,
    'no_flip': True,
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python projects/window_transfer/tools/compare.py --data-root FLOWERS
        python projects/window_transfer/tools/compare.py --data-root FLOWERS --pairs 64/4 96/6
        python projects/window_transfer/tools/compare.py --digits 3000 --seeds 0 1 2
        """,
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        metavar='FOLDER',
        help='folder with train/CLASS and val/CLASS',
    ).completer = FOLDERS
    parser.add_argument(
        '--digits',
        type=int,
        metavar='N',
        help='instead: make digits in the work dir, N of them to test on, with settings for them',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/window_transfer'),
        metavar='FOLDER',
        help='all results',
    ).completer = FOLDERS
    add_cfg_options(parser)
    add = parser.add_argument_group('the study').add_argument
    add(
        '--pairs',
        nargs='+',
        default=['96/6', '128/8', '192/12'],
        metavar='PX/WINDOW',
        help='side of the images in px / of the windows in tokens; trained at the first',
    )
    biases = ['table', 'linear_cpb', 'log_cpb']
    add('--biases', nargs='+', choices=biases, default=biases, help='position biases to compare')
    add(
        '--seeds',
        nargs='+',
        type=int,
        default=[0],
        metavar='N',
        help='a training per bias for each',
    )
    add(
        '--arch',
        default='nano',
        metavar='NAME',
        help="nano, tiny, ..., or 'dict(embed_dim=...,...)'",
    )
    add = parser.add_argument_group('training').add_argument
    add('--epochs', type=int, default=50, metavar='N', help='of the training')
    add(
        '--fine-tune-epochs',
        type=int,
        default=2,
        metavar='N',
        help='at each further pair; 0 for none',
    )
    add('--lr', type=float, default=1e-3, metavar='X', help='peak learning rate of the training')
    add(
        '--fine-tune-lr',
        type=float,
        default=2e-4,
        metavar='X',
        help='peak learning rate of fine-tuning',
    )
    add('--batch-size', type=int, default=16, metavar='N', help='in training')
    add = parser.add_argument_group('images').add_argument
    add(
        '--min-crop',
        type=float,
        default=0.35,
        metavar='X',
        help='least share of an image in a training crop',
    )
    add(
        '--test-crop',
        type=float,
        default=0.875,
        metavar='X',
        help='side of the tested centre, relative',
    )
    add('--no-flip', action='store_true', help='do not mirror training images')
    add('--num-workers', type=int, default=1, metavar='N', help='processes that load images')
    args = parse(parser)
    if (args.data_root is None) == (args.digits is None):
        parser.error('one of --data-root and --digits is needed')
    if args.digits is not None:
        if args.digits < _NUM_DIGITS:
            parser.error(f'--digits {args.digits}: at least one of each is needed')
        for name, value in _DIGITS_SETTINGS.items():
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, value)
    return args


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import sys
import time
import warnings

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[3]))  # where projects/ lies

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from projects.digits.dataset import make_digits_on_photos
from projects.window_transfer.configs import base_config
from projects.window_transfer.images import find_images
from projects.window_transfer.plan import Pair, Study
from projects.window_transfer.running import finished_result, run_cell
from projects.window_transfer.score_tables import draw, notes, table_rows, write_numbers
from swinv2_mm.cli.running import run_tool
from swinv2_mm.errors import UserError

CONFIG = Path(__file__).resolve().parents[3] / 'configs/classification/swinv2-nano-w8_flowers.py'


def read_study(args: argparse.Namespace) -> Study:
    """Turn the command line into the settings of a study."""
    study = Study(
        images=find_images(args.data_root.absolute()),
        arch=args.arch,
        pairs=tuple(map(Pair.parse, args.pairs)),
        biases=tuple(args.biases),
        seeds=tuple(args.seeds),
        epochs=args.epochs,
        fine_tune_epochs=args.fine_tune_epochs,
        lr=args.lr,
        fine_tune_lr=args.fine_tune_lr,
        batch_size=args.batch_size,
        min_crop_rate=args.min_crop,
        test_crop_rate=args.test_crop,
        with_flip=not args.no_flip,
        cfg_options=tuple(args.options),
    )
    study.check()
    return study


def run_study(study: Study, *, work_dir: Path, num_workers: int, console: Console) -> dict:
    """Run what is not finished; returns the scores in percent by cell."""
    base = base_config(CONFIG, study=study)
    cells = list(study.cells())
    results = {cell: finished_result(cell, study=study, work_dir=work_dir) for cell in cells}
    scores = {c: r['top1_percent'] for c, r in results.items() if r and 'top1_percent' in r}
    todo = [cell for cell in cells if results[cell] is None]
    console.print(f'{len(cells)} cells, {len(cells) - len(todo)} of them finished already')
    total = sum(map(study.cost, cells))
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.percentage:.0f} %'),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task('', total=total)
        done = sum(study.cost(cell) for cell in cells if cell not in todo)
        for cell in todo:
            started, cost = time.time(), study.cost(cell)
            progress.update(bar, description=str(cell), completed=done)
            result = run_cell(
                cell,
                study=study,
                base=base,
                work_dir=work_dir,
                num_workers=num_workers,
                advance=lambda part, done=done, cost=cost: progress.update(
                    bar, completed=done + part * cost
                ),
            )
            done += cost
            score = result.get('top1_percent')
            if score is not None:
                scores[cell] = score
                write_numbers(study, scores, folder=work_dir)
            what = 'trained' if score is None else f'top-1 {score:.1f} %'
            console.print(f'{cell}: {what} ({time.time() - started:.0f} s)', soft_wrap=True)
        progress.update(bar, description='finished', completed=total)
    return {cell: scores[cell] for cell in cells if cell in scores}


def _make_digits(root: Path, *, num_test: int) -> Path:
    """Make 6,000 digits to train on and others to test on, as large as the largest images."""
    side_px = Pair.parse(_DIGITS_SETTINGS['pairs'][-1]).resolution_px
    made = make_digits_on_photos(
        root,
        num_train=1,
        num_val=1,
        num_val_crops_per_class=num_test // _NUM_DIGITS,
        crop_size_px=side_px,
    )
    return made / 'folders'


def main() -> None:
    """Run the study."""
    args = parse_args()
    # mmcv warns of the default of its own ColorJitter, in every worker of every epoch.
    warnings.filterwarnings('ignore', message="Only use 'alpha' for pillow backend")
    try:
        args.work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--work-dir {args.work_dir}: {error.strerror}') from error
    if args.digits is not None:
        args.data_root = _make_digits(args.work_dir / 'digits', num_test=args.digits)
    study = read_study(args)
    console = Console()
    scores = run_study(study, work_dir=args.work_dir, num_workers=args.num_workers, console=console)
    write_numbers(study, scores, folder=args.work_dir)
    draw(study, scores, path=args.work_dir / 'plot.png')
    head, *rows = table_rows(study, scores)
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in notes(study, scores):
        console.print(line)
    for name in ('table.md', 'results.csv', 'results.json', 'plot.png'):
        console.print(f'  {args.work_dir / name}', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main)
