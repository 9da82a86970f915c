"""Export a trained model to ONNX or torch.export, verified against the original.

The file takes RGB images as float32 from 0 to 255, (batch, 3, height, width), and returns logits,
detections in the coordinates of these images or, of a backbone, a feature map per stage. It is
compared with the model on real images and kept only if it agrees. The commands test and infer take
it in the place of a checkpoint.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from swinv2_mm.cli.arguments import (
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_config,
    add_trust,
    call,
    new_parser,
    run_command,
)
from swinv2_mm.cli.running import exit_on_sigterm
from swinv2_mm.errors import UserError

# Main metric of each evaluator.
MAIN_METRICS = ('top1', 'mIoU', 'mAP', 'PQ')

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

    from swinv2_mm.export.model import Part
    from swinv2_mm.export.writing import Exported


def export(
    cfg: str | Path | Config,
    weights: str | Path,
    out: str | Path,
    *,
    file_format: Literal['onnx', 'torch-export'] = 'onnx',
    what: Literal['whole', 'backbone'] | None = None,
    shape: tuple[int, int] | None = None,
    dynamic: bool = False,
    int8: bool = False,
    fp16: bool = False,
    images: str | Path | None = None,
    num_images: int = 20,
    options: Sequence[str] = (),
) -> Exported:
    """Write a trained model to a file that runs without this package, and verify it.

    Args:
        cfg: A config file, or a config, which is not modified.
        weights: A checkpoint, weights of any layout, or the name of a released model.
        out: File to write: ``.onnx``, or ``.pt2`` of torch.export.
        file_format: Kind of the file.
        what: Default the whole model, or the backbone where that cannot be exported.
        shape: Height and width of the images in pixels; default those of the first image.
        dynamic: Whether the file takes images of any size.
        int8: Whether to write a copy with integer weights and activations, to OUT with .int8.onnx.
        fp16: Whether to write a copy in float16, to OUT with .fp16.onnx.
        images: Folder of images to compare on; default the test set of the config.
        num_images: How many of them.
        options: Overrides of config entries, as ``key=value``.

    Returns:
        What was written, and how far it is from the original.

    Raises:
        UserError: If the arguments, the config or the weights do not fit, the model cannot be
            traced, or the file does not compute what the model does.
    """
    from swinv2_mm.runtime.files import SUFFIXES, require_onnx

    out = Path(out)
    if out.suffix != SUFFIXES[file_format]:
        raise UserError(f'--format {file_format} writes {SUFFIXES[file_format]}, not {out}')
    if (shape is not None and min(shape) < 1) or num_images < 1:
        raise UserError('--shape and --num-images take positive numbers')
    precisions = [name for name, wanted in (('int8', int8), ('fp16', fp16)) if wanted]
    if precisions and file_format != 'onnx':
        raise UserError(f'--{precisions[0]} goes with --format onnx')
    # First: it puts the stand-in for mmcv's compiled ops in place.
    from mmengine.registry import init_default_scope

    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.checkpoint.loading import find_backbone
    from swinv2_mm.config.file import as_config
    from swinv2_mm.engine.trained_model import load_trained_model
    from swinv2_mm.export.images import first_samples, read_images
    from swinv2_mm.export.writing import write_verified
    from swinv2_mm.inference.class_names import find_classes
    from swinv2_mm.runtime.metadata import describe

    if file_format == 'onnx':
        require_onnx()
    cfg = as_config(cfg, options)
    if 'model' not in cfg:
        raise UserError('the config has no model')
    cfg.setdefault('default_scope', 'mmengine')
    # The entry says how a training is spread over processes; an export runs in one.
    cfg.pop('parallel', None)
    init_default_scope(cfg.default_scope)
    model, meta = load_trained_model(cfg, weights, device='cpu')
    find_backbone(model)
    part = _chosen_part(model, what)
    if images is None:
        compared = first_samples(cfg, loader='test_dataloader', num_images=num_images)
    else:
        compared = read_images(Path(images), num_images=num_images)
    exported = write_verified(
        model.requires_grad_(False),
        out,
        file_format=file_format,
        part=part,
        images=compared,
        shape_px=tuple(shape or compared[0].shape[1:]),
        is_open=dynamic,
        metadata=describe(cfg, classes=find_classes(cfg, checkpoint_meta=meta, model=model).names),
        precisions=precisions,
    )
    return _evaluated(exported) if exported.copies and part != 'backbone' else exported


def _evaluated(exported: Exported) -> Exported:
    """Evaluate a file and its copies on the test set; adds a line for each metric."""
    from .test import test

    files = (exported.path, *exported.copies)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = {path: test(path, work_dir=folder) for path in files}
    except UserError as error:
        # No test set here, or one with images of other sizes; the files are good.
        return replace(exported, lines=(*exported.lines, f'metrics are not measured: {error}'))
    original = found[exported.path]
    names = [name for name in original if name.endswith(MAIN_METRICS)] or list(original)
    metrics = {path: {name: found[path][name] for name in names} for path in files}
    lines = [
        f'{path.name}: {name} {metrics[path][name]:.4g} instead of {original[name]:.4g}'
        for path in exported.copies
        for name in names
    ]
    return replace(exported, lines=(*exported.lines, *lines), metrics=metrics)


def _chosen_part(model: nn.Module, what: str | None) -> Part:
    """Decide what is exported; print it where that is less than all."""
    from swinv2_mm.export.model import WHY_NO_DETECTOR, whole_part

    part = whole_part(model)
    if what == 'backbone':
        return 'backbone'
    if part is None and what == 'whole':
        raise UserError(f'--what whole: {WHY_NO_DETECTOR}')
    if part is None:
        print(f'{type(model).__name__}: {WHY_NO_DETECTOR}')
    return part or 'backbone'


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s CONFIG CKPT model.onnx
        %(prog)s CONFIG CKPT classifier.onnx --int8
        %(prog)s CONFIG CKPT segmentor.onnx --dynamic --images photographs
        %(prog)s CONFIG CKPT model.pt2 --format torch-export --shape 512 512
        """,
    )
    add_config(parser)
    parser.add_argument(
        'weights', metavar='checkpoint', help='weights of any layout, or a released name'
    ).completer = WEIGHTS
    parser.add_argument('out', type=Path, help='file to write: .onnx, or .pt2 of torch.export')
    add_cfg_options(parser)
    add_trust(parser)
    written = parser.add_argument_group('what to write')
    written.add_argument(
        '--format',
        dest='file_format',
        choices=['onnx', 'torch-export'],
        default='onnx',
        help='kind of the file',
    )
    written.add_argument(
        '--what',
        choices=['whole', 'backbone'],
        help='default: the whole model, or the backbone where that cannot be exported',
    )
    size = written.add_mutually_exclusive_group()
    size.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='image size in pixels; default: that of the first image',
    )
    size.add_argument('--dynamic', action='store_true', help='take images of any size')
    for name, what in (('int8', 'with 8-bit weights and activations'), ('fp16', 'in float16')):
        written.add_argument(
            f'--{name}',
            action='store_true',
            help=f'also write OUT with .{name}.onnx, a copy {what}, and print what it costs in the '
            'metrics of the test set',
        )
    check = parser.add_argument_group('what to compare on')
    check.add_argument(
        '--images',
        type=Path,
        metavar='FOLDER',
        help='default: the images of the test set of the config',
    ).completer = FOLDERS
    check.add_argument('--num-images', type=int, default=20, metavar='N', help='how many of them')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; SIGTERM removes its temporary files."""
    with exit_on_sigterm():
        run_command(build_parser(), argv, lambda args: print(call(export, args)), runs_model=True)
