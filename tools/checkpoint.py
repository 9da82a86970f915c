# PYTHON_ARGCOMPLETE_OK
"""Look at SwinV2 weights of any known layout, translate, compare or join them, or fix windows.

FILE is a .pth or .safetensors file, a folder of Hugging Face, a URL, or the name of a released
model such as swinv2-base-w12-192_in22k.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.command_line import FOLDERS, WEIGHTS, add_command, add_trust, new_parser, parse


def _window(text: str) -> tuple[int, int]:
    sides = text.split('x')
    if not all(side.isascii() and side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"'{text}' is no window; write 8, or 8x12")
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"'{text}' has more than two sides")
    return int(sides[0]), int(sides[-1])


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/checkpoint.py inspect swinv2-tiny-w8-256_in1k
        python tools/checkpoint.py convert iter_900.pth folder --layout huggingface
        python tools/checkpoint.py diff a.pth b.safetensors --tolerance 1e-6
        python tools/checkpoint.py bake iter_900.pth fixed.safetensors --window-size 16
        python tools/checkpoint.py consolidate work_dirs/NAME/iter_900.pth joined.safetensors
        """,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    inspect = _add_command(commands, 'inspect', 'say what a file holds')
    inspect.add_argument('--json', action='store_true', help='as JSON, every name listed')
    convert = _add_command(commands, 'convert', 'write another layout')
    convert.add_argument('out', help='.safetensors or .pth; with huggingface also a folder')
    convert.add_argument(
        '--layout',
        choices=['own', 'official', 'timm', 'mmpretrain', 'huggingface', 'torchvision'],
        required=True,
        help='whose names to write',
    )
    diff = _add_command(commands, 'diff', 'compare two files; exit status 1 if they differ')
    diff.add_argument('other', help='another one').completer = WEIGHTS
    diff.add_argument(
        '--tolerance', type=float, default=0.0, metavar='X', help='largest difference; default 0'
    )
    bake = _add_command(commands, 'bake', 'write a copy for inference, with fixed position biases')
    bake.add_argument('out', help='.safetensors or .pth, in our own layout')
    bake.add_argument(
        '--window-size',
        type=_window,
        nargs='+',
        metavar='N',
        required=True,
        help='in tokens, one for all stages or one for each: 16, or 16x8 (height x width)',
    )
    join = add_command(
        commands, 'consolidate', 'write the weights of a sharded checkpoint, a folder, as one file'
    )
    join.add_argument('folder', type=Path, help='a sharded checkpoint').completer = FOLDERS
    join.add_argument('out', type=Path, help='.safetensors')
    join.set_defaults(trust_checkpoint=False)
    return parse(parser)


def _add_command(
    commands: argparse._SubParsersAction, name: str, summary: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, summary)
    parser.add_argument('file', help='weights of any layout').completer = WEIGHTS
    parser.add_argument(
        '--pretrained-window-sizes',
        type=_window,
        nargs='+',
        metavar='N',
        help='window per stage that the weights were trained at (8, or 8x12), if they do not tell',
    )
    add_trust(parser)
    return parser


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import copy
import json

import torch

from swinv2_mm.checkpoint import CheckpointError, save_pretrained
from swinv2_mm.checkpoint.building import LoadedModel, model_of
from swinv2_mm.checkpoint.reading import trust_files
from swinv2_mm.checkpoint.report import LoadReport, format_window
from swinv2_mm.checkpoint.sharded import consolidate
from swinv2_mm.core import ARCHITECTURES
from swinv2_mm.core.swin_transformer_v2 import WindowSize
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError

# Largest relative difference of outputs that float32 rounding explains.
_BAKED_TOLERANCE = 1e-4
_LISTED_DIFFERENCES = 10


def _window_size(windows: list[tuple[int, int]] | None) -> WindowSize | None:
    """Take one square window for that of all stages."""
    if windows and len(windows) == 1 and windows[0][0] == windows[0][1]:
        return windows[0][0]
    return windows


def load(file: str, args: argparse.Namespace) -> tuple[LoadedModel, LoadReport]:
    """Build the model of a file.

    Raises:
        UserError: If it cannot be read.
    """
    return model_of(file, pretrained_window_sizes=_window_size(args.pretrained_window_sizes))


def described(model: LoadedModel, report: LoadReport) -> dict:
    """Say in words and numbers what a file holds."""
    backbone = model.backbone
    stem = backbone.patch_embed.proj
    known = [name for name, arch in ARCHITECTURES.items() if arch == backbone.arch]
    dtypes = {str(p.dtype).removeprefix('torch.') for p in model.parameters()}
    return {
        'layout': report.layout,
        'arch': known[0] if known else 'custom',
        'embed_dim': backbone.arch.embed_dim,
        'depths': list(backbone.arch.depths),
        'num_heads': list(backbone.arch.num_heads),
        'position_bias': backbone.layers[0].blocks[0].attn.position_bias,
        'trained at windows': [format_window(size) for size in report.reference_windows],
        'patch': f'{stem.stride[0]} px, {stem.in_channels} channels',
        'output norms': list(backbone.out_indices),
        'classes': None if model.head is None else model.head.out_features,
        'parameters': sum(p.numel() for p in model.parameters()),
        'loaded as': ', '.join(sorted(dtypes)),
    }


def run_inspect(args: argparse.Namespace) -> None:
    """Print what a file holds and what would become of each of its entries."""
    model, report = load(args.file, args)
    facts = described(model, report)
    if args.json:
        facts |= {
            'loaded': report.loaded,
            'renamed': dict(report.renamed),
            'dropped': dict(report.dropped),
            'missing': dict(report.missing),
        }
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        text = ', '.join(map(str, value)) if isinstance(value, list) else value
        text = f'{text:,}' if isinstance(text, int) else text
        print(f'{name:<20}{"none" if text is None else text}')
    print(report)


def run_convert(args: argparse.Namespace) -> None:
    """Write a file in another layout."""
    model, report = load(args.file, args)
    left_out = save_pretrained(_whole(model), args.out, layout=args.layout)
    print(
        f'{args.out}: {len(report.loaded)} parameters of {report.layout} weights as {args.layout}'
    )
    for name, reason in left_out.items():
        print(f'  left out: {name} ({reason})')


def _whole(model: LoadedModel) -> torch.nn.Module:
    return model.backbone if model.head is None else model


def run_diff(args: argparse.Namespace) -> None:
    """Compare the values of two files, whatever their layouts."""
    (ours, our_report), (theirs, their_report) = load(args.file, args), load(args.other, args)
    found = []
    facts = described(ours, our_report), described(theirs, their_report)
    for key in facts[0]:
        if key not in ('layout', 'loaded as', 'parameters') and facts[0][key] != facts[1][key]:
            found.append(f'{key}: {facts[0][key]} against {facts[1][key]}')
    left, right = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for here, there, name in ((left, right, args.other), (right, left, args.file)):
        if lacking := [key for key in here if key not in there]:
            found.append(f'{name} lacks {len(lacking)} parameters, such as {lacking[0]}')
    differences = {}
    for key in left.keys() & right.keys():
        if left[key].shape != right[key].shape:
            found.append(f'{key}: {tuple(left[key].shape)} against {tuple(right[key].shape)}')
            continue
        difference = (left[key] - right[key]).abs().max().item()
        if difference > args.tolerance:
            differences[key] = difference
    worst = sorted(differences, key=differences.get, reverse=True)
    found += [f'{key}: differs by up to {differences[key]:.3g}' for key in worst][
        :_LISTED_DIFFERENCES
    ]
    for line in found:
        print(line)
    if found:
        raise UserError(
            f'{args.file} and {args.other} differ: {len(differences)} of '
            f'{len(left.keys() & right.keys())} common parameters'
        )
    print(f'the same {len(left)} parameters, within {args.tolerance:g}')


@torch.inference_mode()
def run_bake(args: argparse.Namespace) -> None:
    """Write a copy whose bias networks are replaced by their values at one window."""
    model, _ = load(args.file, args)
    backbone = model.backbone
    backbone.set_window_size(_window_size(args.window_size))
    fixed = copy.deepcopy(model)
    fixed.backbone.bake_position_bias()
    # Not a multiple of the windows: padded and shifted ones are compared as well.
    stem = backbone.patch_embed.proj
    side = stem.stride[0] * (2 * max(map(max, backbone.window_sizes)) + 1)
    image = torch.randn(1, stem.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    expected, got = backbone(image), fixed.backbone(image)
    worst = max(
        ((a - b).abs().max() / a.abs().max()).item() for a, b in zip(expected, got, strict=True)
    )
    if not worst <= _BAKED_TOLERANCE:
        raise CheckpointError(f'baked outputs would differ by {worst:.3g}; nothing was written')
    save_pretrained(_whole(fixed), args.out)
    windows = ', '.join(map(format_window, backbone.window_sizes))
    print(f'{args.out}: position bias fixed at windows {windows}')
    print(f'outputs agree to {worst:.2g} of their largest value ({side} x {side} px)')


def run_consolidate(args: argparse.Namespace) -> None:
    """Write the weights of a sharded checkpoint as one file."""
    num_tensors = consolidate(args.folder, args.out)
    size_mb = args.out.stat().st_size / 1e6
    print(f'{args.out}: {num_tensors} tensors, {size_mb:.1f} MB')


COMMANDS = {
    'inspect': run_inspect,
    'convert': run_convert,
    'diff': run_diff,
    'bake': run_bake,
    'consolidate': run_consolidate,
}


def main() -> None:
    """Run a command."""
    args = parse_args()
    if args.trust_checkpoint:
        trust_files()
    try:
        COMMANDS[args.command](args)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


if __name__ == '__main__':
    run_tool(main)
