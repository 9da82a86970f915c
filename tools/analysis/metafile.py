# PYTHON_ARGCOMPLETE_OK
"""Bring the model lists (configs/TASK/metafile.yml) up to date with the configs.

Adds and removes entries as configs come and go, and measures their parameters and FLOPs. Scores
are written into the lists by hand; they are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/analysis/metafile.py
        python tools/analysis/metafile.py configs/detection/metafile.yml --check
        """,
    )
    parser.add_argument('metafile', nargs='*', type=Path, help='default: all under configs/')
    parser.add_argument('--check', action='store_true', help='change nothing, fail if out of date')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.metafile import read_metafile, refreshed, to_text
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Refresh."""
    args = parse_args()
    stale = []
    paths = args.metafile or sorted(ROOT.glob('configs/*/metafile.yml'))
    for path in paths:
        content = read_metafile(path)
        text = to_text(refreshed(content, folder=path.resolve().parent))
        if text == path.read_text():
            continue
        stale.append(str(path))
        if not args.check:
            atomic_write(path, text)
    if args.check and stale:
        raise UserError(f'out of date: {", ".join(stale)}; run tools/analysis/metafile.py')
    print(f'changed: {", ".join(stale) or "nothing"}')


if __name__ == '__main__':
    run_tool(main)
