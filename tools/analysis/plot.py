# PYTHON_ARGCOMPLETE_OK
"""Draw what a SwinV2 model has learnt and how it trains, as PNG or SVG.

WEIGHTS is a .pth or .safetensors file of any known layout, a folder of Hugging Face, a URL, or the
name of a released model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import (
    WEIGHTS,
    add_cfg_options,
    add_command,
    add_config,
    new_parser,
    parse,
)


def _window(text: str) -> tuple[int, int]:
    sides = text.split('x')
    if len(sides) > 2 or not all(s.isascii() and s.isdecimal() and int(s) for s in sides):
        raise argparse.ArgumentTypeError(f"'{text}' is no window; write 8, or 8x12")
    return int(sides[0]), int(sides[-1])


def _pixel(text: str) -> tuple[int, int]:
    numbers = text.split(',')
    if len(numbers) != 2 or not all(n.isascii() and n.isdecimal() for n in numbers):
        raise argparse.ArgumentTypeError(f"'{text}' is no pixel; write X,Y, such as 120,80")
    return int(numbers[0]), int(numbers[1])


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/analysis/plot.py bias swinv2-tiny-w8-256_in1k --windows 8 16 --out bias.png
        python tools/analysis/plot.py attention CKPT a.jpg --pixel 320,240 --out look.png
        python tools/analysis/plot.py signal CKPT --images a.jpg b.jpg --out signal.svg
        python tools/analysis/plot.py curves work_dirs/A work_dirs/B --keys loss lr --out curves.png
        python tools/analysis/plot.py rates CONFIG --out rates.png
        """,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    bias = _add_command(commands, 'bias', 'learnt position bias by head, layer and window')
    bias.add_argument(
        'weights', nargs='+', help='several are drawn one above the other'
    ).completer = WEIGHTS
    bias.add_argument(
        '--windows', nargs='+', type=_window, metavar='N', help='8, or 8x12; default: as trained'
    )
    bias.add_argument(
        '--layers', nargs='+', metavar='STAGE.BLOCK', help='default: first block of each stage'
    )
    bias.add_argument('--heads', nargs='+', type=int, metavar='N', help='default: all')

    signal = _add_command(commands, 'signal', 'amplitude of activations by depth, on pictures')
    signal.add_argument(
        'weights', nargs='+', help='several are drawn into one figure'
    ).completer = WEIGHTS
    signal.add_argument(
        '--images', nargs='+', type=Path, required=True, metavar='FILE', help='pictures'
    )
    signal.add_argument('--size', type=int, default=256, metavar='PX', help='longer side in px')

    attention = _add_command(commands, 'attention', 'where one pixel looks, drawn over the image')
    attention.add_argument('weights', help='weights of any layout').completer = WEIGHTS
    attention.add_argument('image', type=Path, help='a picture')
    attention.add_argument(
        '--pixel', type=_pixel, required=True, metavar='X,Y', help='in px of the image file'
    )
    attention.add_argument(
        '--layers',
        nargs='+',
        metavar='STAGE.BLOCK',
        help='default: the last two blocks of each stage',
    )
    attention.add_argument('--heads', action='store_true', help='each head as well as the mean')
    attention.add_argument('--size', type=int, default=512, metavar='PX', help='longer side in px')
    attention.add_argument(
        '--window-size', type=int, metavar='N', help='in tokens; default: as trained'
    )

    curves = _add_command(commands, 'curves', 'training curves of runs')
    curves.add_argument('runs', nargs='+', type=Path, help='work dirs or scalars.json files')
    curves.add_argument(
        '--keys', nargs='+', metavar='NAME', help='scalars, such as loss lr; default: the main ones'
    )

    rates = _add_command(commands, 'rates', 'learning rate and weight decay by layer, of a config')
    add_config(rates)
    add_cfg_options(rates)
    return parse(parser)


def _add_command(
    commands: argparse._SubParsersAction, name: str, summary: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, summary)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE.png|svg', help='the picture'
    )
    return parser


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.attention_map import attention_maps, draw_attention
from swinv2_mm.analysis.bias_maps import bias_maps, draw_bias_maps
from swinv2_mm.analysis.canvas import check_path, save, style
from swinv2_mm.analysis.curves import draw_curves, read_records
from swinv2_mm.analysis.layers import last_blocks, parse_layers
from swinv2_mm.analysis.rates import draw_rates, layer_rates
from swinv2_mm.analysis.signal import SignalRecorder, draw_signal
from swinv2_mm.checkpoint.building import model_of
from swinv2_mm.config.file import load_config
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.datasets.image_files import read_image
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError

# Of ImageNet, in RGB and [0, 255], as every config here normalises.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def backbone_of(weights: str) -> SwinTransformerV2:
    """Build the backbone that weights are those of."""
    return model_of(weights)[0].backbone


def names_of(sources: Sequence[str | Path]) -> list[str]:
    """Give sources short names that tell them apart."""
    paths = [Path(source) for source in sources]
    # Every run has its iter_100.pth: of several files, the folder is part of the name.
    for depth in range(min(len(paths), 2), max(2, max(len(path.parts) for path in paths)) + 1):
        names = ['/'.join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def read_scaled(path: Path, *, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Read a picture and make its longer side ``size`` px.

    Returns:
        (H, W, 3) in [0, 1], and width and height of the file.

    Raises:
        UserError: If the file is no picture.
    """
    if size < 1:
        raise UserError(f'--size must be positive, got {size}')
    image = Image.fromarray(read_image(str(path))[:, :, ::-1])
    before, scale = image.size, size / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in before])
    return torch.from_numpy(np.asarray(image).copy()).float() / 255, before


def normalised(image: Tensor) -> Tensor:
    """(H, W, 3) in [0, 1] -> (1, 3, H, W) as the model takes it."""
    return ((255 * image - torch.tensor(_MEAN)) / torch.tensor(_STD)).permute(2, 0, 1)[None]


def bias_figure(args: argparse.Namespace) -> Figure:
    """Draw position biases."""
    groups = []
    for source, name in zip(args.weights, names_of(args.weights), strict=True):
        backbone = backbone_of(source)
        layers = args.layers or [f'{stage}.0' for stage in range(len(backbone.layers))]
        for layer in parse_layers(layers, backbone=backbone):
            for window in args.windows or [backbone.window_sizes[layer[0]]]:
                groups.append(bias_maps(backbone, layer=layer, window=window, source=name))
    # One above the other is what is to be compared.
    groups.sort(key=lambda group: group.layer)
    if args.heads and not any(0 <= h < len(g.maps) for g in groups for h in args.heads):
        raise UserError(f'--heads: these layers have at most {max(len(g.maps) for g in groups)}')
    if args.heads and min(args.heads) < 0:
        raise UserError('--heads are counted from 0')
    return draw_bias_maps(groups, heads=args.heads)


@torch.no_grad()
def signal_figure(args: argparse.Namespace) -> Figure:
    """Measure and draw amplitudes."""
    images = [normalised(read_scaled(path, size=args.size)[0]) for path in args.images]
    signals = {}
    for source, name in zip(args.weights, names_of(args.weights), strict=True):
        backbone = backbone_of(source)
        recorder = SignalRecorder()
        with recorder.watching(backbone):
            for image in images:
                backbone(image)
        signals[name] = recorder.amplitudes()
    return draw_signal(signals)


def attention_figure(args: argparse.Namespace) -> Figure:
    """Compute and draw attention."""
    backbone = backbone_of(args.weights)
    if args.window_size is not None:
        backbone.set_window_size(args.window_size)
    image, (width, height) = read_scaled(args.image, size=args.size)
    x, y = args.pixel
    if x >= width or y >= height:
        raise UserError(f'--pixel {x},{y} is outside of {args.image}, {width} x {height} px')
    pixel = (y * image.shape[0] // height, x * image.shape[1] // width)
    chosen = parse_layers(args.layers or [], backbone=backbone) or last_blocks(backbone)
    maps = attention_maps(backbone, normalised(image), pixel=pixel, layers=chosen)
    title = f'Attention of pixel {x},{y} of {args.image.name} over its window'
    return draw_attention(image, maps, pixel=pixel, with_heads=args.heads, title=title)


def curves_figure(args: argparse.Namespace) -> Figure:
    """Draw training curves."""
    runs = [path.parent.parent if path.name == 'scalars.json' else path for path in args.runs]
    records = map(read_records, args.runs)
    return draw_curves(dict(zip(names_of(runs), records, strict=True)), keys=args.keys)


def rates_figure(args: argparse.Namespace) -> Figure:
    """Draw learning rates and decays."""
    cfg = load_config(args.config, args.cfg_options)
    return draw_rates(
        layer_rates(cfg), title=f'What the optimiser of {Path(args.config).stem} does'
    )


FIGURES = {
    'bias': bias_figure,
    'signal': signal_figure,
    'attention': attention_figure,
    'curves': curves_figure,
    'rates': rates_figure,
}


def main() -> None:
    """Draw."""
    args = parse_args()
    check_path(args.out)
    try:
        with style():
            save(FIGURES[args.command](args), args.out)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
