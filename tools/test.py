"""Measure a trained model on the test set of a config, and draw its predictions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.engine.config_file import check_data, load_config
from swinv2_mm.engine.launch import (
    add_common_arguments,
    build_runner,
    naming_broken_annotations,
    run_tool,
)
from swinv2_mm.errors import UserError

# The hook of each library that draws predictions, with its own words for the same thing.
_DRAWING = {
    'mmdet': dict(type='DetVisualizationHook', draw=True),
    'mmseg': dict(type='SegVisualizationHook', draw=True, interval=1),
    'mmpretrain': dict(type='VisualizationHook', enable=True, interval=1),
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='weights written by tools/train.py')
    parser.add_argument('--window-size', type=int, help='test at another window, in tokens')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write the metrics')
    parser.add_argument('--show-dir', type=Path, help='write pictures with predictions drawn')
    return parser.parse_args()


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


def set_window(runner_model: object, window_size: int) -> None:
    """Set the window of the backbone inside a model."""
    backbones = [m for m in runner_model.modules() if isinstance(m, SwinTransformerV2)]
    if not backbones:
        raise UserError('--window-size: the model of this config has no SwinV2 backbone')
    for backbone in backbones:
        try:
            backbone.set_window_size(window_size)
        except ValueError as error:
            raise UserError(f'--window-size: {error}') from error


def main() -> None:
    """Test."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    if not Path(args.checkpoint).is_file() and '://' not in args.checkpoint:
        raise UserError(f'checkpoint {args.checkpoint} does not exist')
    cfg.load_from, cfg.resume = args.checkpoint, False
    check_data(cfg, ['test_dataloader'])
    if args.show_dir is not None:
        draw_predictions(cfg, args.show_dir)
    runner = build_runner(cfg, args)
    if args.window_size is not None:
        set_window(runner.model, args.window_size)
    metrics = naming_broken_annotations(cfg, runner.test)
    if args.out is not None and is_main_process():
        args.out.parent.mkdir(parents=True, exist_ok=True)
        result = {'config': args.config, 'checkpoint': args.checkpoint, 'metrics': metrics}
        args.out.write_text(json.dumps(result, indent=2, default=float) + '\n')


if __name__ == '__main__':
    run_tool(main)
