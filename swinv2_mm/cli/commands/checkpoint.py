"""Inspect, convert, compare, bake or consolidate SwinV2 weights of any known layout; map classes.

FILE is a .pth, .safetensors or MindSpore's .ckpt file, a folder of Hugging Face, a URL, or the
name of a released model such as swinv2-base-w12-192_in22k.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import (
    FOLDERS,
    WEIGHTS,
    add_command,
    add_trust,
    new_parser,
    parse_window,
    run_command,
)
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from swinv2_mm.core.stage_settings import WindowSize


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s inspect swinv2-tiny-w8-256_in1k
        %(prog)s convert iter_900.pth folder --layout huggingface
        %(prog)s diff a.pth b.safetensors --tolerance 1e-6
        %(prog)s bake iter_900.pth fixed.safetensors --window-size 16
        %(prog)s consolidate work_dirs/NAME/iter_900.pth joined.safetensors
        %(prog)s class-map data/imagenet22k/train data/imagenet/train map.txt
        """,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    inspect = _add_command(commands, 'inspect', 'describe what a file holds')
    inspect.add_argument('--json', action='store_true', help='as JSON, every name listed')
    convert = _add_command(commands, 'convert', 'write another layout')
    convert.add_argument(
        'out', help='.safetensors or .pth; with huggingface and timm also a folder'
    )
    convert.add_argument(
        '--layout',
        choices=['own', 'official', 'timm', 'mmpretrain', 'huggingface', 'torchvision'],
        required=True,
        help='layout of the output file',
    )
    diff = _add_command(commands, 'diff', 'compare two files; exit status 1 if they differ')
    diff.add_argument('other', help='weights to compare with').completer = WEIGHTS
    diff.add_argument(
        '--tolerance', type=float, default=0.0, metavar='X', help='largest difference; default 0'
    )
    bake = _add_command(commands, 'bake', 'write a copy for inference, with fixed position biases')
    bake.add_argument('out', help='.safetensors or .pth, in our own layout')
    bake.add_argument(
        '--window-size',
        type=parse_window,
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
    class_map = add_command(
        commands, 'class-map', 'write a head_class_map from the names of class folders'
    )
    class_map.add_argument(
        'known', help='class folders of the larger head, or a file with a name per line'
    ).completer = FOLDERS
    class_map.add_argument('wanted', help='those of the model to train').completer = FOLDERS
    class_map.add_argument('out', type=Path, help='text file for head_class_map')
    class_map.add_argument(
        '--substitute',
        nargs='+',
        default=[],
        metavar='NAME=OTHER',
        help='class of the larger head for one that it lacks',
    )
    return parser


def _add_command(
    commands: argparse._SubParsersAction, name: str, summary: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, summary)
    parser.add_argument('file', help='weights of any layout').completer = WEIGHTS
    parser.add_argument(
        '--pretrained-window-sizes',
        type=parse_window,
        nargs='+',
        metavar='N',
        help='pretrained window per stage (8, or 8x12), if the weights do not declare it',
    )
    add_trust(parser)
    return parser


def _window_size(windows: list[tuple[int, int]] | None) -> WindowSize | None:
    """Take one square window for that of all stages."""
    if windows and len(windows) == 1 and windows[0][0] == windows[0][1]:
        return windows[0][0]
    return windows


def _inspect(args: argparse.Namespace) -> None:
    """Print what a file holds and what would become of each of its entries."""
    import json

    from swinv2_mm.checkpoint.building import model_of
    from swinv2_mm.checkpoint.operations import describe

    model, report = model_of(
        args.file, pretrained_window_sizes=_window_size(args.pretrained_window_sizes)
    )
    facts = describe(model, report)
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


def _convert(args: argparse.Namespace) -> None:
    """Write a file in another layout."""
    from swinv2_mm.analysis.saved_facts import saved_facts
    from swinv2_mm.checkpoint import save_pretrained
    from swinv2_mm.checkpoint.building import model_of
    from swinv2_mm.checkpoint.load_report import format_window
    from swinv2_mm.checkpoint.operations import whole
    from swinv2_mm.checkpoint.reading import open_weights

    weights = open_weights(args.file)
    model, report = model_of(
        weights, pretrained_window_sizes=_window_size(args.pretrained_window_sizes)
    )
    facts = saved_facts(weights.content)
    facts.apply(model.backbone)
    left_out = save_pretrained(
        whole(model),
        args.out,
        layout=args.layout,
        image_size_px=facts.image_side_px,
        classes=facts.classes,
    )
    print(
        f'{args.out}: {len(report.loaded)} parameters of {report.layout} weights as {args.layout}'
    )
    windows = ', '.join(map(format_window, model.backbone.window_sizes))
    trained = ', '.join(map(format_window, report.pretrained_window_sizes))
    print(f'  windows {windows}; position bias trained at {trained}')
    if facts.image_side_px is not None:
        print(f'  image size {facts.image_side_px} px')
    if facts.classes:
        print(f'  {len(facts.classes)} classes: {", ".join(facts.classes)}')
    for name, reason in left_out.items():
        print(f'  left out: {name} ({reason})')


def _diff(args: argparse.Namespace) -> None:
    """Compare the values of two files, whatever their layouts."""
    from swinv2_mm.checkpoint.operations import compare

    found, num_different, num_common = compare(
        args.file,
        args.other,
        tolerance=args.tolerance,
        pretrained_window_sizes=_window_size(args.pretrained_window_sizes),
    )
    for line in found:
        print(line)
    if found:
        raise UserError(
            f'{args.file} and {args.other} differ: {num_different} of {num_common} common '
            'parameters'
        )
    print(f'the same {num_common} parameters, within {args.tolerance:g}')


def _bake(args: argparse.Namespace) -> None:
    """Write a copy whose bias networks are replaced by their values at one window size."""
    from swinv2_mm.checkpoint.operations import bake

    baked = bake(
        args.file,
        args.out,
        window_size=_window_size(args.window_size),
        pretrained_window_sizes=_window_size(args.pretrained_window_sizes),
    )
    print(f'{args.out}: position bias fixed at windows {baked.windows}')
    side = baked.side_px
    print(f'outputs agree to {baked.difference:.2g} of their largest value ({side} x {side} px)')


def _consolidate(args: argparse.Namespace) -> None:
    """Write the weights of a sharded checkpoint as one file."""
    from swinv2_mm.checkpoint.sharded import consolidate

    num_tensors = consolidate(args.folder, args.out)
    size_mb = args.out.stat().st_size / 1e6
    print(f'{args.out}: {num_tensors} tensors, {size_mb:.1f} MB')


def _class_map(args: argparse.Namespace) -> None:
    """Write which class of a larger head each class is, by the names of their folders."""
    from swinv2_mm.atomic_write import atomic_write
    from swinv2_mm.checkpoint.class_map import class_folders, match_class_names

    pairs = [pair.partition('=') for pair in args.substitute]
    known, wanted = class_folders(args.known), class_folders(args.wanted)
    numbers = match_class_names(
        known, wanted, substitutes={name: other for name, _, other in pairs}
    )
    atomic_write(args.out, ''.join(f'{number}\n' for number in numbers))
    print(f'{args.out}: {len(wanted)} of {len(known)} classes')


_COMMANDS = {
    'inspect': _inspect,
    'convert': _convert,
    'diff': _diff,
    'bake': _bake,
    'consolidate': _consolidate,
    'class-map': _class_map,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        paths = [getattr(args, name, '') for name in ('file', 'out')]
        if all(map(os.path.exists, paths)) and os.path.samefile(*paths):
            # Layouts leave out what they have no place for.
            raise UserError(f'{args.out} is what is read: name another file to write')
        try:
            _COMMANDS[args.command](args)
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error

    run_command(build_parser(), argv, run)
