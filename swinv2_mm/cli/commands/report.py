"""Write a report of a training as one HTML file: configuration, curves, scores, images.

The model runs over the validation set of the config that the training left in its work dir. The
file needs no network and nothing beside it.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from swinv2_mm.cli.arguments import (
    CONFIGS,
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_trust,
    call,
    new_parser,
    run_command,
)
from swinv2_mm.errors import UserError


def report(
    work_dir: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    config: str | Path | None = None,
    checkpoint: str | Path | None = None,
    num_images: int | None = None,
    num_examples: int | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Write a report of a training, or compare several.

    Args:
        work_dir: Folder of the training, or several to compare.
        out: HTML file to write; default ``report.html`` in the work dir, of several
            ``comparison.html`` in the first.
        config: Default: the one in the work dir.
        checkpoint: Default: the last one in the work dir.
        num_images: Images to evaluate, spread over the validation set; default all.
        num_examples: Images shown of the best, the worst and at random; default 6, or as many as
            make a file of 5 MB.
        options: Overrides of config entries, as ``key=value``.

    Returns:
        The file.

    Raises:
        UserError: If a work dir lacks what is needed, runs cannot be compared, or the file cannot
            be written.
    """
    if num_images is not None and num_images < 1:
        raise UserError(f'--num-images must be positive, got {num_images}')
    if num_examples is not None and num_examples < 0:
        raise UserError(f'--num-examples must not be negative, got {num_examples}')
    folders = [Path(work_dir)] if isinstance(work_dir, (str, Path)) else list(map(Path, work_dir))
    if len(folders) > 1 and (config or checkpoint):
        raise UserError('--config and --checkpoint are of one training: leave them out to compare')
    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.analysis.curves import read_records
    from swinv2_mm.atomic_write import atomic_write
    from swinv2_mm.checkpoint.reading import check_source
    from swinv2_mm.config.datasets import check_data
    from swinv2_mm.config.file import load_config
    from swinv2_mm.datasets.palette import class_colours
    from swinv2_mm.engine.work_dir import checkpoint_in, config_in
    from swinv2_mm.libraries import library_of
    from swinv2_mm.report.comparison import Run, distinct_names, render_comparison
    from swinv2_mm.report.page import fitted, render
    from swinv2_mm.report.predicting import evaluate
    from swinv2_mm.report.work_dir import environment_in, settings_of, speed_of

    found = []
    for folder in folders:
        file = Path(config) if config else config_in(folder)
        weights = checkpoint or checkpoint_in(folder)
        check_source(weights)
        cfg = load_config(str(file), options)
        check_data(cfg, ['val_dataloader'])
        found.append((file, cfg, weights))
    names, runs = distinct_names(folders), []
    tasks = [library_of(cfg, purpose='report').task for _, cfg, _ in found]
    if len(set(tasks)) > 1:
        listed = ', '.join(f'{name} of {task}' for name, task in zip(names, tasks, strict=True))
        raise UserError(f'only trainings of one task can be compared, these are: {listed}')
    for name, folder, (_, cfg, weights) in zip(names, folders, found, strict=True):
        try:
            records = read_records(folder)
        except UserError:
            # A training without logged scalars has no curves, but all the rest.
            records = []
        findings, classes, palette = evaluate(
            copy.deepcopy(cfg), str(weights), num_images=num_images
        )
        runs.append(Run(name, cfg, records, findings, classes))
    colours = class_colours(len(classes), palette=palette)
    if len(runs) > 1:
        show = partial(render_comparison, runs, class_colours=colours)
        html = fitted(lambda number: show(number_per_group=number), number=num_examples)
        out = Path(out) if out else folders[0] / 'comparison.html'
        atomic_write(out, html)
        return out
    ((file, cfg, weights),), (run,), (folder,) = found, runs, folders
    environment = environment_in(folder)
    is_gpu = environment.get('CUDA available') == 'True'
    show = partial(
        render,
        title=file.stem,
        facts={
            'Settings': {**settings_of(cfg), 'checkpoint': Path(weights).name},
            'Speed and memory': speed_of(run.records, cfg=cfg, is_gpu=is_gpu),
            'Environment': environment,
        },
        config=cfg.pretty_text,
        records=run.records,
        findings=run.findings,
        classes=run.classes,
        class_colours=colours,
    )
    html = fitted(lambda number: show(number_per_group=number), number=num_examples)
    out = Path(out) if out else folder / 'report.html'
    atomic_write(out, html)
    return out


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s work_dirs/NAME
        %(prog)s work_dirs/NAME work_dirs/OTHER
        %(prog)s work_dirs/NAME --checkpoint CKPT --num-images 200 --out early.html
        """,
    )
    parser.add_argument(
        'work_dir', type=Path, nargs='+', help='folder of a training; several are compared'
    ).completer = FOLDERS
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE.html',
        help='default: report.html in the work dir; of several, comparison.html in the first',
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
        help='images shown of the best, the worst and at random; default 6, fewer above 5 MB',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        path = call(report, args)
        print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')

    run_command(build_parser(), argv, run, is_intermixed=True, runs_model=True)
