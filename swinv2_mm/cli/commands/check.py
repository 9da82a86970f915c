"""Validate the data sets of a config before hours of training.

Exit status 1 if there are errors. Every byte of every image is read; --num-images N opens fewer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import add_cfg_options, add_config, call, new_parser, run_command
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from swinv2_mm.data_check.survey import Survey


def check(
    cfg: str | Path | Config,
    *,
    loader: str = 'all',
    num_images: int | None = None,
    contact_sheet: str | Path | None = None,
    out: str | Path | None = None,
    options: Sequence[str] = (),
) -> Survey:
    """Validate the data sets of a config.

    Args:
        cfg: A config file, or a config, which is not modified.
        loader: ``train``, ``val``, ``test`` or ``all``.
        num_images: Images to open of each data set, evenly spaced; default all.
        contact_sheet: Image file to draw samples with their labels to.
        out: JSON file to write the findings to.
        options: Overrides of config entries, as ``key=value``.

    Returns:
        What was found; it prints as the report of the command.

    Raises:
        UserError: If the config has no data set that can be validated.
    """
    if num_images is not None and num_images < 0:
        raise UserError(f'--num-images must not be negative, got {num_images}')
    from PIL import Image

    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.config.datasets import check_data
    from swinv2_mm.config.file import as_config
    from swinv2_mm.data_check.contact_sheet import draw_contact_sheet
    from swinv2_mm.data_check.survey import LOADERS, survey
    from swinv2_mm.data_check.survey_output import as_text, write_json

    Image.init()
    if contact_sheet is not None and Path(contact_sheet).suffix.lower() not in Image.EXTENSION:
        raise UserError(f'--contact-sheet: {contact_sheet} should end in .png')
    cfg = as_config(cfg, options)
    loaders = LOADERS if loader == 'all' else (loader,)
    check_data(cfg, [f'{name}_dataloader' for name in loaders])
    result = survey(cfg, config=str(cfg.filename), loaders=loaders, num_images=num_images)
    print(as_text(result))
    if out is not None:
        write_json(result, Path(out))
        print(f'findings: {out}')
    if contact_sheet is not None:
        number = draw_contact_sheet(result, Path(contact_sheet))
        print(f'contact sheet of {number} images: {contact_sheet}')
    return result


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s CONFIG --contact-sheet sheet.png
        %(prog)s CONFIG --loader train --num-images 200 --out findings.json
        """,
    )
    add_config(parser)
    add_cfg_options(parser)
    parser.add_argument(
        '--loader',
        choices=['train', 'val', 'test', 'all'],
        default='all',
        help='data sets to validate',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        metavar='N',
        help='open N images of each data set, evenly spaced; annotations are read in full',
    )
    parser.add_argument(
        '--contact-sheet', type=Path, metavar='FILE.png', help='draw samples with their labels'
    )
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write the findings')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        if call(check, args).findings.count('error'):
            sys.exit(1)

    run_command(build_parser(), argv, run)
