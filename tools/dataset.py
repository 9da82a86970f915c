# PYTHON_ARGCOMPLETE_OK
"""Look the data sets of a config over before hours of training.

Exit status 1 if there are errors. Every byte of every image is read; --num-images N opens fewer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.command_line import add_cfg_options, add_command, add_config, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/dataset.py check CONFIG --contact-sheet sheet.png
        python tools/dataset.py check CONFIG --loader train --num-images 200 --out findings.json
        """,
    )
    commands = parser.add_subparsers(dest='command', required=True)
    check = add_command(commands, 'check', 'look for faults in files and labels')
    add_config(check)
    add_cfg_options(check)
    check.add_argument(
        '--loader', choices=['train', 'val', 'test', 'all'], default='all', help='data sets to read'
    )
    check.add_argument(
        '--num-images',
        type=int,
        metavar='N',
        help='open N images of each data set, at even distances; annotations are read in full',
    )
    check.add_argument(
        '--contact-sheet', type=Path, metavar='FILE.png', help='draw samples with their labels'
    )
    check.add_argument('--out', type=Path, metavar='FILE.json', help='write the findings')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import sys

from PIL import Image

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.datasets import check_data
from swinv2_mm.config.file import load_config
from swinv2_mm.data_check.contact_sheet import draw_contact_sheet
from swinv2_mm.data_check.report import as_text, write_json
from swinv2_mm.data_check.survey import LOADERS, survey
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError


def main() -> None:
    """Check."""
    args = parse_args()
    if args.num_images is not None and args.num_images < 0:
        raise UserError(f'--num-images must not be negative, got {args.num_images}')
    Image.init()
    if args.contact_sheet and args.contact_sheet.suffix.lower() not in Image.EXTENSION:
        raise UserError(f'--contact-sheet: {args.contact_sheet} should end in .png')
    cfg = load_config(args.config, args.cfg_options)
    loaders = LOADERS if args.loader == 'all' else (args.loader,)
    check_data(cfg, [f'{loader}_dataloader' for loader in loaders])
    result = survey(cfg, config=args.config, loaders=loaders, num_images=args.num_images)
    print(as_text(result))
    if args.out:
        write_json(result, args.out)
        print(f'findings: {args.out}')
    if args.contact_sheet:
        number = draw_contact_sheet(result, args.contact_sheet)
        print(f'contact sheet of {number} images: {args.contact_sheet}')
    if result.findings.count('error'):
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
