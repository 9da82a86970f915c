# PYTHON_ARGCOMPLETE_OK
"""Measure a trained model on the test set of a config, and draw or keep its predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.command_line import (
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_config,
    add_launcher,
    add_trust,
    add_work_dir,
    new_parser,
    parse,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/test.py CONFIG work_dirs/NAME/iter_900.pth --show-dir pictures
        python tools/test.py CONFIG CKPT --tta --cfg-options tta.scales=[0.75,1.0]
        python tools/test.py CONFIG CKPT --window-size 16 --out scores.json --out predictions.npz
        python tools/test.py CONFIG swinv2-tiny-w8-256_in1k
        tools/dist_test.sh CONFIG CKPT 8
        """,
    )
    add_config(parser)
    parser.add_argument(
        'checkpoint', help='weights: a file, a URL, or the name of a released model'
    ).completer = WEIGHTS
    add_work_dir(parser)
    add_cfg_options(parser)
    how = parser.add_argument_group('how to test')
    how.add_argument(
        '--tta',
        action='store_true',
        help='test at several scales and mirrored, and merge; what, says the config entry tta '
        '(without one, configs/_base_/tta/TASK.py)',
    )
    how.add_argument(
        '--window-size',
        metavar='N[,N...]',
        help='test at another window, in tokens: one for all stages or one per stage, '
        'each N or HxW',
    )
    add_launcher(how)
    add_trust(how)
    output = parser.add_argument_group('what to write')
    output.add_argument(
        '--out',
        type=Path,
        action='append',
        default=[],
        metavar='FILE',
        help='FILE.json: write the metrics; FILE.npz: write the predictions; may be repeated',
    )
    output.add_argument(
        '--format-only',
        action='store_true',
        help='measure nothing, but write the files that an evaluation server takes, '
        'to WORK_DIR/submission',
    )
    output.add_argument(
        '--show-dir',
        type=Path,
        metavar='FOLDER',
        help='write pictures with predictions drawn',
    ).completer = FOLDERS
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import json

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import PrepareTTAHook

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models
import swinv2_mm.testing.multi_view
import swinv2_mm.testing.predictions  # noqa: F401
from swinv2_mm.checkpoint.zoo import url_of
from swinv2_mm.config.datasets import check_data
from swinv2_mm.config.file import load_config
from swinv2_mm.config.options import apply_options
from swinv2_mm.config.windows import parse_window_size
from swinv2_mm.data_check.guard import guard_data
from swinv2_mm.engine.launch import (
    build_runner,
    naming_broken_annotations,
    run_tool,
)
from swinv2_mm.errors import UserError
from swinv2_mm.inference.trained_model import set_window_size
from swinv2_mm.testing.submission import write_submission_only
from swinv2_mm.testing.views import split_test_pipeline

# The hook of each library that draws predictions, with its own words for the same thing.
_DRAWING = {
    'mmdet': dict(type='DetVisualizationHook', draw=True),
    'mmseg': dict(type='SegVisualizationHook', draw=True, interval=1),
    'mmpretrain': dict(type='VisualizationHook', enable=True, interval=1),
}
_TTA_FRAGMENTS = Path(__file__).resolve().parent.parent / 'configs' / '_base_' / 'tta'
_TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpretrain': 'classification'}


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse before the test what could not be written after it."""
    for path in args.out:
        if path.suffix not in ('.json', '.npz'):
            raise UserError(f'--out {path}: must end in .json (metrics) or .npz (predictions)')
        if path.suffix == '.json' and args.format_only:
            raise UserError(f'--out {path}: with --format-only there are no metrics')


def draw_predictions(cfg: Config, folder: Path) -> None:
    """Have every test image written to ``folder`` with its prediction."""
    scope = cfg.get('default_scope')
    if scope not in _DRAWING:
        raise UserError(f'--show-dir: default_scope {scope} is none of {", ".join(_DRAWING)}')
    hook = dict(_DRAWING[scope])
    if scope == 'mmpretrain':
        hook['out_dir'] = str(folder)
    elif scope == 'mmdet':
        hook['test_out_dir'] = str(folder.absolute())
    cfg.visualizer.save_dir = str(folder)
    hooks = cfg.setdefault('default_hooks', {})
    hooks['visualization'] = {**hooks.get('visualization', {}), **hook}


def complete_tta(cfg: Config) -> None:
    """Take the entries of ``tta`` that a config lacks from the task's fragment."""
    scope = cfg.get('default_scope')
    if scope not in _TASKS:
        raise UserError(f'--tta: default_scope {scope} is none of {", ".join(_TASKS)}')
    fragment = Config.fromfile(_TTA_FRAGMENTS / f'{_TASKS[scope]}.py')
    cfg.tta = {**fragment.tta, **cfg.get('tta', {})}


def keep_predictions(cfg: Config, path: Path) -> None:
    """Have the predictions of the whole test set written to ``path``."""
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [dict(type='PredictionFile', path=str(path)), *metrics]


def main() -> None:
    """Test."""
    args = parse_args()
    check_outputs(args)
    cfg = load_config(args.config)
    if args.tta:
        complete_tta(cfg)
    apply_options(cfg, args.cfg_options)
    if not Path(args.checkpoint).exists() and '://' not in args.checkpoint:
        if url_of(args.checkpoint) is None:
            raise UserError(f'checkpoint {args.checkpoint} does not exist')
    cfg.load_from, cfg.resume = args.checkpoint, False
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    submission = Path(cfg.work_dir) / 'submission'
    if args.format_only:
        write_submission_only(cfg, submission)
    for path in args.out:
        if path.suffix == '.npz':
            keep_predictions(cfg, path)
    check_data(cfg, ['test_dataloader'])
    if args.show_dir is not None:
        draw_predictions(cfg, args.show_dir)
    hooks = []
    if args.tta:
        model = dict(type='MultiViewModel', scope=cfg.default_scope, nms=cfg.tta.get('nms'))
        hooks = [PrepareTTAHook(dict(model, views=split_test_pipeline(cfg)))]
    runner = build_runner(cfg, args)
    guard_data(runner, ['test'])
    for hook in hooks:
        runner.register_hook(hook)
    if args.window_size is not None:
        set_window_size(runner.model, parse_window_size(args.window_size))
    metrics = naming_broken_annotations(cfg, runner.test)
    if not is_main_process():
        return
    for path in args.out:
        if path.suffix == '.json':
            path.parent.mkdir(parents=True, exist_ok=True)
            result = {'config': args.config, 'checkpoint': args.checkpoint, 'metrics': metrics}
            path.write_text(json.dumps(result, indent=2, default=float) + '\n')
    if args.format_only:
        files = sorted(path for path in submission.rglob('*') if path.is_file())
        shown = ', '.join(map(str, files)) if len(files) < 5 else f'{len(files)} in {submission}'
        print(f'submission files: {shown}')


if __name__ == '__main__':
    run_tool(main)
