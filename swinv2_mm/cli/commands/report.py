"""Write a report of a training as one HTML file: configuration, curves, scores, images.

The model runs over the validation set of the config that the training left in its work dir. The
file needs no network and nothing beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from swinv2_mm.cli.arguments import (
    CONFIGS,
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_trust,
    announce,
    given,
    new_parser,
    parse,
)
from swinv2_mm.errors import UserError


def report(
    work_dir: str | Path,
    *,
    out: str | Path | None = None,
    config: str | Path | None = None,
    checkpoint: str | Path | None = None,
    num_images: int | None = None,
    num_examples: int = 6,
    options: Sequence[str] = (),
) -> Path:
    """Write a report of a training.

    Args:
        work_dir: Folder of the training.
        out: HTML file to write; default ``report.html`` in the work dir.
        config: Default: the one in the work dir.
        checkpoint: Default: the last one in the work dir.
        num_images: Images to evaluate, spread over the validation set; default all.
        num_examples: Images shown of the best, the worst and at random.
        options: Overrides of config entries, as ``key=value``.

    Returns:
        The file.

    Raises:
        UserError: If the work dir lacks what is needed, or the file cannot be written.
    """
    if num_images is not None and num_images < 1:
        raise UserError(f'--num-images must be positive, got {num_images}')
    if num_examples < 0:
        raise UserError(f'--num-examples must not be negative, got {num_examples}')
    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.analysis.curves import read_records
    from swinv2_mm.atomic_write import atomic_write
    from swinv2_mm.checkpoint.reading import check_source
    from swinv2_mm.config.datasets import check_data
    from swinv2_mm.config.file import load_config
    from swinv2_mm.datasets.palette import class_colours
    from swinv2_mm.engine.work_dir import checkpoint_in, config_in
    from swinv2_mm.report.page import render
    from swinv2_mm.report.predicting import evaluate
    from swinv2_mm.report.work_dir import environment_in, settings_of, speed_of

    work_dir = Path(work_dir)
    config = Path(config) if config else config_in(work_dir)
    cfg = load_config(str(config), options)
    checkpoint = checkpoint or checkpoint_in(work_dir)
    check_source(checkpoint)
    check_data(cfg, ['val_dataloader'])
    out = Path(out) if out else work_dir / 'report.html'
    try:
        records = read_records(work_dir)
    except UserError:
        # A training without logged scalars has no curves, but all the rest.
        records = []
    findings, classes, palette = evaluate(cfg, str(checkpoint), num_images=num_images)
    environment = environment_in(work_dir)
    is_gpu = environment.get('CUDA available') == 'True'
    html = render(
        title=config.stem,
        facts={
            'Settings': {**settings_of(cfg), 'checkpoint': Path(checkpoint).name},
            'Speed and memory': speed_of(records, cfg=cfg, is_gpu=is_gpu),
            'Environment': environment,
        },
        config=cfg.pretty_text,
        records=records,
        findings=findings,
        classes=classes,
        class_colours=class_colours(len(classes), palette=palette),
        number_per_group=num_examples,
    )
    atomic_write(out, html)
    return out


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s work_dirs/NAME
        %(prog)s work_dirs/NAME --checkpoint CKPT --num-images 200 --out early.html
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
    images = parser.add_argument_group('images')
    images.add_argument(
        '--num-images',
        type=int,
        metavar='N',
        help='images to evaluate, spread over the set; default: all',
    )
    images.add_argument(
        '--num-examples',
        type=int,
        metavar='N',
        default=6,
        help='images shown of the best, the worst and at random',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = parse(build_parser(), argv)
    announce(argv)
    from swinv2_mm.engine.launch import run_tool

    def run() -> None:
        path = report(**given(report, args))
        print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')

    run_tool(run, trust_checkpoint=args.trust_checkpoint)
