"""Draw figures of models and trainings, as PNG or SVG: biases, attention, activations, curves.

WEIGHTS is a .pth or .safetensors file of any known layout, a folder of Hugging Face, a URL, or the
name of a released model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import (
    WEIGHTS,
    add_cfg_options,
    add_command,
    add_config,
    new_parser,
    parse_window,
    run_command,
)
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _pixel(text: str) -> tuple[int, int]:
    numbers = text.split(',')
    if len(numbers) != 2 or not all(n.isascii() and n.isdecimal() for n in numbers):
        raise argparse.ArgumentTypeError(f"'{text}' is no pixel; write X,Y, such as 120,80")
    return int(numbers[0]), int(numbers[1])


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s bias swinv2-tiny-w8-256_in1k --windows 8 16 --out bias.png
        %(prog)s attention CKPT a.jpg --pixel 320,240 --out look.png
        %(prog)s signal CKPT --images a.jpg b.jpg --out signal.svg
        %(prog)s curves work_dirs/A work_dirs/B --keys loss lr --out curves.png
        %(prog)s rates CONFIG --out rates.png
        """,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    bias = _add_command(commands, 'bias', 'position bias by head, layer and window')
    bias.add_argument(
        'weights', nargs='+', help='one or more, drawn below each other'
    ).completer = WEIGHTS
    bias.add_argument(
        '--windows',
        nargs='+',
        type=parse_window,
        default=[],
        metavar='N',
        help='8, or 8x12; default: the pretrained ones',
    )
    bias.add_argument(
        '--layers',
        nargs='+',
        default=[],
        metavar='STAGE.BLOCK',
        help='default: first block of each stage',
    )
    bias.add_argument('--heads', nargs='+', type=int, default=[], metavar='N', help='default: all')

    signal = _add_command(commands, 'signal', 'amplitude of activations by depth, on images')
    signal.add_argument(
        'weights', nargs='+', help='one or more, drawn into one figure'
    ).completer = WEIGHTS
    signal.add_argument(
        '--images', nargs='+', type=Path, required=True, metavar='FILE', help='image files'
    )
    signal.add_argument('--size', type=int, default=256, metavar='PX', help='longer side in px')

    attention = _add_command(commands, 'attention', 'attention of one pixel, drawn over the image')
    attention.add_argument('weights', help='weights of any layout').completer = WEIGHTS
    attention.add_argument('image', type=Path, help='image file')
    attention.add_argument(
        '--pixel', type=_pixel, required=True, metavar='X,Y', help='in px of the image file'
    )
    attention.add_argument(
        '--layers',
        nargs='+',
        default=[],
        metavar='STAGE.BLOCK',
        help='default: the last two blocks of each stage',
    )
    attention.add_argument('--heads', action='store_true', help='each head as well as the mean')
    attention.add_argument('--size', type=int, default=512, metavar='PX', help='longer side in px')
    attention.add_argument(
        '--window-size', type=int, metavar='N', help='in tokens; default: the pretrained one'
    )

    curves = _add_command(commands, 'curves', 'training curves of runs')
    curves.add_argument('runs', nargs='+', type=Path, help='work dirs or scalars.json files')
    curves.add_argument(
        '--keys', nargs='+', metavar='NAME', help='scalars, such as loss lr; default: the main ones'
    )

    rates = _add_command(commands, 'rates', 'learning rate and weight decay by layer, of a config')
    add_config(rates)
    add_cfg_options(rates)
    return parser


def _add_command(
    commands: argparse._SubParsersAction, name: str, summary: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, summary)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE.png|svg', help='file to write'
    )
    return parser


def _draw(args: argparse.Namespace) -> Figure:
    from swinv2_mm.analysis import figures

    if args.command == 'bias':
        return figures.bias_figure(
            args.weights, windows=args.windows, layers=args.layers, heads=args.heads
        )
    if args.command == 'signal':
        return figures.signal_figure(args.weights, images=args.images, size_px=args.size)
    if args.command == 'attention':
        return figures.attention_figure(
            args.weights,
            args.image,
            pixel=args.pixel,
            layers=args.layers,
            with_heads=args.heads,
            size_px=args.size,
            window_size=args.window_size,
        )
    if args.command == 'curves':
        return figures.curves_figure(args.runs, keys=args.keys)
    return figures.rates_figure(args.cfg, options=args.options)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        # First: it puts the stand-in for mmcv's compiled ops in place.
        import swinv2_mm.models  # noqa: F401
        from swinv2_mm.analysis.canvas import check_path, save, style

        check_path(args.out)
        try:
            with style():
                save(_draw(args), args.out)
        except ValueError as error:
            raise UserError(str(error)) from error
        print(args.out)

    run_command(build_parser(), argv, run)
