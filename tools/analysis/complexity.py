# PYTHON_ARGCOMPLETE_OK
"""Print the parameters, FLOPs and GPU memory of a config's model; runs without a GPU.

One multiply-accumulate is one FLOP. Nothing is allocated: a G model takes as little as a T.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import add_cfg_options, add_config, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/analysis/complexity.py CONFIG --shape 800 1344 --batch 2 --amp --verbose
        python tools/analysis/complexity.py --arch tiny --window-size 8 --shape 256 256
        """,
    )
    model = parser.add_argument_group('the model')
    add_config(model, nargs='?')
    add_cfg_options(model)
    model.add_argument(
        '--arch', metavar='NAME', help='instead of a config: a plain classifier; tiny, small, ...'
    )
    model.add_argument(
        '--num-classes', type=int, default=1000, metavar='N', help='with --arch; default 1000'
    )
    model.add_argument(
        '--window-size', type=int, metavar='N', help='window in tokens, in place of the config'
    )
    what = parser.add_argument_group('what to measure')
    what.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar=('H', 'W'),
        help='size of the image; default: what the config tests at, or 256 256 with --arch',
    )
    what.add_argument(
        '--batch', type=int, metavar='N', help='images at once; default: as the config trains'
    )
    what.add_argument('--amp', action='store_true', help='memory in mixed precision')
    what.add_argument('--no-memory', action='store_true', help='leave the memory out (faster)')
    what.add_argument('--verbose', action='store_true', help='list the parts of the model')
    what.add_argument('--out', type=Path, metavar='FILE.json', help='write all figures')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import json
from dataclasses import asdict

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.complexity import Complexity, classifier_cfg, measure
from swinv2_mm.analysis.input_size import input_size_px
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError

_ARCH_SIZE_PX = (256, 256)
_GIB = 2**30


def read_model(args: argparse.Namespace) -> dict:
    """Turn the command line into the arguments of ``measure``."""
    if (args.config is None) == (args.arch is None):
        raise UserError('give either a config or --arch')
    batch = 1
    if args.arch is not None:
        window = args.window_size or 8
        model_cfg = classifier_cfg(args.arch, window_size=window, num_classes=args.num_classes)
        scope, size_px = 'mmpretrain', _ARCH_SIZE_PX
    else:
        cfg = load_config(args.config, args.cfg_options)
        if 'model' not in cfg or 'default_scope' not in cfg:
            raise UserError(f'config {args.config} has no model, or no default_scope')
        model_cfg, scope = cfg.model, cfg.default_scope
        if args.window_size is not None:
            model_cfg.backbone.window_size = args.window_size
        batch = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
        size_px = None if args.shape else input_size_px(cfg)
    if args.shape:
        if len(args.shape) > 2 or min(args.shape) < 1:
            raise UserError(f'--shape takes one or two positive sides, got {args.shape}')
        size_px = (args.shape[0], args.shape[-1])
    if args.batch is not None:
        if args.batch < 1:
            raise UserError(f'--batch must be positive, got {args.batch}')
        batch = args.batch
    return dict(model_cfg=model_cfg, scope=scope, size_px=size_px, batch=batch)


def print_report(report: Complexity, *, amp: bool, verbose: bool) -> None:
    """Print the figures for a person."""
    height, width = report.size_px
    print(f'image                        {height} x {width} px')
    print(f'parameters                   {report.params / 1e6:.2f} M')
    print(f'  of them backbone           {report.backbone_params / 1e6:.2f} M')
    print('FLOPs per image (a multiply-accumulate is one)')
    print(f'  all that runs              {report.macs / 1e9:.3f} G')
    print(f'  official formula           {report.official_flops / 1e9:.3f} G')
    print(f'  MMCls convention           {report.mmcls_flops / 1e9:.3f} G')
    if report.roi_counts is not None:
        counts = report.roi_counts
        print(
            f'  (taken: {counts.num_boxes} regions in each box head, {counts.num_masks} in each '
            'mask head; proposals, RoIAlign and NMS not counted)'
        )
    if report.memory is not None:
        precision = 'mixed precision' if amp else 'float32'
        print(f'GPU memory, batch of {report.batch}, {precision}, AdamW')
        for name, num_bytes in asdict(report.memory).items():
            if name == 'training_flops':
                continue
            words = {'training': 'peak in training', 'testing': 'peak in testing'}
            label = words.get(name, '  ' + name.replace('_', ' '))
            print(f'  {label:<27}{num_bytes / _GIB:.2f} GiB')
    if verbose:
        print(f'{"part":<34}{"parameters":>14}{"GFLOPs":>12}')
        for part in report.parts:
            print(f'{part.name:<34}{part.params:>14,}{part.macs / 1e9:>12.3f}')


def main() -> None:
    """Measure."""
    args = parse_args()
    arguments = read_model(args)
    report = measure(**arguments, amp=args.amp, with_memory=not args.no_memory)
    print_report(report, amp=args.amp, verbose=args.verbose)
    if args.out is not None:
        result = {'config': args.config, 'arch': args.arch, 'amp': args.amp, **asdict(report)}
        atomic_write(args.out, json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    run_tool(main)
