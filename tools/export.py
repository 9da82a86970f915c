# PYTHON_ARGCOMPLETE_OK
"""Write a trained model as ONNX or as a torch.export file, checked against the original.

The file takes RGB images as float32 from 0 to 255, (batch, 3, height, width), and gives logits or,
of a backbone, a feature map per stage. It is compared with the model on real images and kept only
if it agrees.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import (
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_config,
    add_trust,
    new_parser,
    parse,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/export.py CONFIG CKPT model.onnx
        python tools/export.py CONFIG CKPT classifier.onnx --int8
        python tools/export.py CONFIG CKPT segmentor.onnx --dynamic --images photographs
        python tools/export.py CONFIG CKPT model.pt2 --format torch-export --shape 512 512
        """,
    )
    add_config(parser)
    parser.add_argument('checkpoint', help='weights written by tools/train.py').completer = WEIGHTS
    parser.add_argument('out', type=Path, help='file to write: .onnx, or .pt2 of torch.export')
    add_cfg_options(parser)
    add_trust(parser)
    what = parser.add_argument_group('what to write')
    what.add_argument(
        '--format', choices=['onnx', 'torch-export'], default='onnx', help='kind of the file'
    )
    what.add_argument(
        '--what',
        choices=['whole', 'backbone'],
        help='default: the whole model, or the backbone of a detector',
    )
    size = what.add_mutually_exclusive_group()
    size.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='image size in pixels; default: that of the first image',
    )
    size.add_argument('--dynamic', action='store_true', help='take images of any size')
    what.add_argument(
        '--int8',
        action='store_true',
        help='also write OUT with .int8.onnx, a classifier in 8-bit weights, and print what it '
        'costs in accuracy on the validation set',
    )
    check = parser.add_argument_group('what to compare on')
    check.add_argument(
        '--images',
        type=Path,
        metavar='FOLDER',
        help='default: the images of the test set of the config',
    ).completer = FOLDERS
    check.add_argument('--num-images', type=int, default=20, metavar='N', help='how many of them')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import itertools
import tempfile

from mmengine.config import Config
from torch import Tensor, nn

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.checkpoint.reading import trust_files
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError
from swinv2_mm.export.files import SUFFIXES, opened, require_onnx, trace, write
from swinv2_mm.export.network import (
    WHY_NO_DETECTOR,
    Network,
    Part,
    load_model,
    traceable,
    whole_part,
)
from swinv2_mm.export.pictures import read_pictures, samples
from swinv2_mm.export.quantization import check_logits, check_weights, quantize
from swinv2_mm.export.verification import TOLERANCE, largest_difference, logits, top1_rates

_BYTES_PER_MB = 1e6


def check_args(args: argparse.Namespace) -> None:
    """Raise a ``UserError`` where arguments do not fit together."""
    if args.out.suffix != SUFFIXES[args.format]:
        raise UserError(f'--format {args.format} writes {SUFFIXES[args.format]}, not {args.out}')
    if (args.shape is not None and min(args.shape) < 1) or args.num_images < 1:
        raise UserError('--shape and --num-images take positive numbers')
    if args.int8 and args.format != 'onnx':
        raise UserError('--int8 goes with --format onnx')
    if args.format == 'onnx':
        require_onnx()


def chosen_part(model: nn.Module, what: str | None) -> Part:
    """Decide what is exported; says so where it is less than all."""
    part = whole_part(model)
    if what == 'backbone':
        return 'backbone'
    if part is None and what == 'whole':
        raise UserError(f'--what whole: {WHY_NO_DETECTOR}')
    if part is None:
        print(f'{type(model).__name__}: {WHY_NO_DETECTOR}')
    return part or 'backbone'


def load_pictures(args: argparse.Namespace, cfg: Config) -> list[Tensor]:
    """Read the images to compare on."""
    if args.images is not None:
        return read_pictures(args.images, num_pictures=args.num_images)
    found = itertools.islice(samples(cfg, loader='test_dataloader'), args.num_images)
    return [sample['inputs'] for sample in found]


def export(
    args: argparse.Namespace, model: nn.Module, *, part: Part, pictures: list[Tensor], folder: Path
) -> None:
    """Write and verify a file in ``folder``."""
    shape_px = tuple(args.shape)
    shapes_px = [shape_px]
    if args.dynamic:
        # A second size that neither windows nor strides divide, of other proportions.
        shapes_px.append((shape_px[0] * 3 // 4 + 1, shape_px[1] * 5 // 4 + 3))
    network = Network(model, part=part)
    fixed_px = None if args.dynamic else shape_px
    program = trace(traceable(network, has_fixed_size=not args.dynamic), shape_px=fixed_px)
    path = folder / args.out.name
    write(program, path, file_format=args.format, output_names=network.output_names)
    worst = largest_difference(
        model,
        opened(path, file_format=args.format),
        pictures=pictures,
        shapes_px=shapes_px,
        part=part,
    )
    sizes = ' and '.join(f'{height} x {width}' for height, width in shapes_px)
    found = f'largest relative difference {worst:.2g} on {len(pictures)} images at {sizes} px'
    if not worst <= TOLERANCE:
        raise UserError(f'{found}, more than {TOLERANCE:g}: nothing was written')
    side = 'height x width open' if args.dynamic else f'{shape_px[0]} x {shape_px[1]} px'
    print(f'{args.out}: {part}, {side}, {_size(path)} -> {", ".join(network.output_names)}')
    print(found)


def export_int8(
    args: argparse.Namespace, cfg: Config, *, pictures: list[Tensor], folder: Path
) -> None:
    """Write and verify the 8-bit copy of a classifier, and measure the accuracy of both."""
    path = folder / args.out.name
    small = path.with_suffix('.int8.onnx')
    quantize(path, small)
    check_weights(small)
    runs = [opened(file, file_format='onnx') for file in (path, small)]
    print(check_logits(*(logits(run, pictures, shape_px=tuple(args.shape)) for run in runs)))
    shape_px = None if args.dynamic else tuple(args.shape)
    (before, after), number = top1_rates(
        runs, samples(cfg, loader='val_dataloader'), shape_px=shape_px
    )
    print(f'{args.out.with_suffix(".int8.onnx")}: {_size(small)} instead of {_size(path)}')
    print(
        f'top-1 {100 * after:.2f} % instead of {100 * before:.2f} % '
        f'({100 * (after - before):+.2f}) on {number} validation images'
    )


def _size(path: Path) -> str:
    files = [path, *path.parent.glob(f'{path.name}.data')]
    return f'{sum(file.stat().st_size for file in files) / _BYTES_PER_MB:.1f} MB'


def main() -> None:
    """Export."""
    args = parse_args()
    check_args(args)
    if args.trust_checkpoint:
        trust_files()
    cfg = load_config(args.config, args.cfg_options)
    model = load_model(cfg, args.checkpoint)
    part = chosen_part(model, args.what)
    if args.int8 and part != 'classifier':
        raise UserError(f'--int8 is for classifiers, this is a {part}')
    pictures = load_pictures(args, cfg)
    args.shape = args.shape or pictures[0].shape[1:]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix='.export-') as folder:
        export(args, model, part=part, pictures=pictures, folder=Path(folder))
        if args.int8:
            export_int8(args, cfg, pictures=pictures, folder=Path(folder))
        for file in Path(folder).iterdir():
            file.replace(args.out.parent / file.name)


if __name__ == '__main__':
    run_tool(main)
