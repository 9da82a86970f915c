"""Report the parameters, FLOPs and GPU memory of a config's model; runs without a GPU.

One multiply-accumulate is one FLOP. Nothing is allocated: a G model takes as little as a T.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import (
    add_cfg_options,
    add_config,
    add_shape,
    call,
    new_parser,
    parse_shape,
    run_command,
)
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from swinv2_mm.analysis.complexity import Complexity

_ARCH_SIZE_PX = (256, 256)
_ARCH_WINDOW = 8
_GIB = 2**30


def complexity(
    cfg: str | Path | Config | None = None,
    *,
    arch: str | dict | None = None,
    num_classes: int = 1000,
    window_size: int | None = None,
    shape: Sequence[int] = (),
    batch: int | None = None,
    amp: bool = False,
    with_memory: bool = True,
    out: str | Path | None = None,
    options: Sequence[str] = (),
) -> Complexity:
    """Measure the parameters, FLOPs and memory of a model.

    Args:
        cfg: A config file, or a config, which is not modified.
        arch: Instead of a config: the backbone of a plain classifier.
        num_classes: Number of classes of that classifier.
        window_size: In tokens; default that of the config.
        shape: Height and width of the image, or one side; default the size that the config tests
            at.
        batch: Images at once, for the memory; default as the config trains.
        amp: Whether the memory is that of mixed precision.
        with_memory: Whether to estimate the memory.
        out: JSON file to write.
        options: Overrides of config entries, as ``key=value``.

    Raises:
        UserError: If the config is not valid, or a value does not fit.
    """
    if (cfg is None) == (arch is None):
        raise UserError('give either a config or --arch')
    size_px = parse_shape(shape)
    if batch is not None and batch < 1:
        raise UserError(f'--batch must be positive, got {batch}')
    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.analysis.complexity import classifier_cfg, measure
    from swinv2_mm.analysis.input_size import input_size_px
    from swinv2_mm.atomic_write import atomic_write
    from swinv2_mm.config.file import as_config

    if arch is not None:
        window = _ARCH_WINDOW if window_size is None else window_size
        model = classifier_cfg(arch, window_size=window, num_classes=num_classes)
        name, scope, size_px = None, 'mmpretrain', size_px or _ARCH_SIZE_PX
    else:
        cfg = as_config(cfg, options)
        name = cfg.filename
        if 'model' not in cfg or 'default_scope' not in cfg:
            raise UserError(f'config {name} has no model, or no default_scope')
        model, scope, size_px = cfg.model, cfg.default_scope, size_px or input_size_px(cfg)
        if window_size is not None:
            model.backbone.window_size = window_size
        batch = batch or (cfg.get('train_dataloader') or {}).get('batch_size')
    report = measure(
        model, scope=scope, size_px=size_px, batch=batch or 1, amp=amp, with_memory=with_memory
    )
    if out is not None:
        result = {'config': name, 'arch': arch, 'amp': amp, **asdict(report)}
        atomic_write(out, json.dumps(result, indent=2) + '\n')
    return report


def _print(report: Complexity, *, amp: bool, verbose: bool) -> None:
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
            f'  (assumed: {counts.num_boxes} regions in each box head, {counts.num_masks} in each '
            'mask head; proposals, RoIAlign and NMS not counted)'
        )
    if report.memory is not None:
        precision = 'mixed precision' if amp else 'float32'
        print(f'GPU memory, batch of {report.batch}, {precision}, AdamW')
        for name, num_bytes in asdict(report.memory).items():
            if name == 'training_flops':
                continue
            labels = {'training': 'peak in training', 'testing': 'peak in testing'}
            label = labels.get(name, '  ' + name.replace('_', ' '))
            print(f'  {label:<27}{num_bytes / _GIB:.2f} GiB')
    if verbose:
        print(f'{"part":<34}{"parameters":>14}{"GFLOPs":>12}')
        for part in report.parts:
            print(f'{part.name:<34}{part.params:>14,}{part.macs / 1e9:>12.3f}')


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s CONFIG --shape 800 1344 --batch 2 --amp --verbose
        %(prog)s --arch tiny --window-size 8 --shape 256 256
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
        '--window-size', type=int, metavar='N', help="in tokens; default: the config's"
    )
    what = parser.add_argument_group('what to measure')
    add_shape(what, default='that of the test pipeline, or 256 256 with --arch')
    what.add_argument(
        '--batch', type=int, metavar='N', help='batch size; default: that of training'
    )
    what.add_argument('--amp', action='store_true', help='memory in mixed precision')
    what.add_argument(
        '--no-memory',
        dest='with_memory',
        action='store_false',
        help='skip the memory estimate (faster)',
    )
    what.add_argument('--verbose', action='store_true', help='list the parts of the model')
    what.add_argument('--out', type=Path, metavar='FILE.json', help='write all figures')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        _print(call(complexity, args), amp=args.amp, verbose=args.verbose)

    run_command(build_parser(), argv, run)
