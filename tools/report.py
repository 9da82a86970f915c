# PYTHON_ARGCOMPLETE_OK
"""Write a report of a training as one HTML file: configuration, curves, scores, pictures.

The model runs over the validation set of the config that the training left in its work dir. The
file needs no network and nothing beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.command_line import (
    CONFIGS,
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_trust,
    new_parser,
    parse,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/report.py work_dirs/NAME
        python tools/report.py work_dirs/NAME --checkpoint CKPT --num-images 200 --out early.html
        """,
    )
    parser.add_argument('work_dir', type=Path, help='folder of a training').completer = FOLDERS
    parser.add_argument(
        '--out', type=Path, metavar='FILE.html', help='default: report.html in the work dir'
    )
    model = parser.add_argument_group('the model')
    model.add_argument(
        '--config', metavar='FILE', help='default: the one in the work dir'
    ).completer = CONFIGS
    model.add_argument(
        '--checkpoint', type=Path, metavar='CKPT', help='default: the last one in the work dir'
    ).completer = WEIGHTS
    add_cfg_options(model)
    add_trust(model)
    pictures = parser.add_argument_group('pictures')
    pictures.add_argument(
        '--num-images',
        type=int,
        metavar='N',
        help='pictures to measure on, spread over the set; default: all',
    )
    pictures.add_argument(
        '--num-examples',
        type=int,
        metavar='N',
        default=6,
        help='pictures shown of the best, the worst and at random',
    )
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

from tqdm import tqdm

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.curves import Record, read_records
from swinv2_mm.checkpoint.reading import trust_files
from swinv2_mm.config.datasets import check_data
from swinv2_mm.config.file import load_config
from swinv2_mm.datasets.palette import class_colours
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.engine.work_dir import checkpoint_in, config_in
from swinv2_mm.errors import UserError
from swinv2_mm.report.page import render
from swinv2_mm.report.predicting import evaluate
from swinv2_mm.report.work_dir import environment_in, settings_of, speed_of


def logged(work_dir: Path) -> list[Record]:
    """Return the scalars of a training; none is no mistake here."""
    try:
        return read_records(work_dir)
    except UserError:
        return []


def main() -> None:
    """Report."""
    args = parse_args()
    if args.num_images is not None and args.num_images < 1:
        raise UserError(f'--num-images must be positive, got {args.num_images}')
    if args.num_examples < 0:
        raise UserError(f'--num-examples must not be negative, got {args.num_examples}')
    if args.trust_checkpoint:
        trust_files()
    config = Path(args.config) if args.config else config_in(args.work_dir)
    cfg = load_config(str(config), args.cfg_options)
    checkpoint = args.checkpoint or checkpoint_in(args.work_dir)
    if not checkpoint.is_file():
        raise UserError(f'checkpoint {checkpoint} does not exist')
    check_data(cfg, ['val_dataloader'])
    out = args.out or args.work_dir / 'report.html'
    records = logged(args.work_dir)

    running = evaluate(cfg, checkpoint, num_images=args.num_images)
    with tqdm(total=next(running), unit='image', disable=None) as bar:
        while True:
            try:
                bar.update(next(running) - bar.n)
            except StopIteration as end:
                findings, classes, palette = end.value
                break
    html = render(
        title=config.stem,
        facts={
            'Settings': {**settings_of(cfg), 'checkpoint': checkpoint.name},
            'Speed and memory': speed_of(records, cfg=cfg),
            'Environment': environment_in(args.work_dir),
        },
        config=cfg.pretty_text,
        records=records,
        findings=findings,
        classes=classes,
        class_colours=class_colours(len(classes), palette=palette),
        number_per_group=args.num_examples,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html, encoding='utf-8')
    except OSError as error:
        raise UserError(f'--out {out}: {error.strerror or error}') from error
    print(f'{out}: {len(html) / 1e6:.1f} MB')


if __name__ == '__main__':
    run_tool(main)
