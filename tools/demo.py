# PYTHON_ARGCOMPLETE_OK
"""Serve a web page on which trained models can be tried with own images; Ctrl-C ends it."""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import FOLDERS, add_device, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/demo.py
        python tools/demo.py --model CONFIG CKPT --model OTHER_CONFIG OTHER_CKPT --port 0
        """,
    )
    models = parser.add_argument_group('models on offer')
    models.add_argument(
        '--model',
        nargs=2,
        action='append',
        default=[],
        metavar=('CONFIG', 'WEIGHTS'),
        help='one model; may be repeated',
    )
    models.add_argument(
        '--work-dirs',
        type=Path,
        metavar='FOLDER',
        help='all trainings in this folder; default work_dirs, unless there is a --model',
    ).completer = FOLDERS
    add_device(models)
    page = parser.add_argument_group('the page')
    page.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at; others than 127.0.0.1 let anybody in the network use the page',
    )
    page.add_argument('--port', type=int, default=8000, help='0: any free one')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import sys

from swinv2_mm.demo_page.model_shelf import ModelShelf, describe_model, find_models
from swinv2_mm.demo_page.server import PageServer
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError


def main() -> None:
    """Serve until interrupted."""
    args = parse_args()
    choices = [describe_model(config, weights) for config, weights in args.model]
    if args.work_dirs is not None or not choices:
        folder = args.work_dirs or Path('work_dirs')
        found = find_models(folder)
        if not found and not choices:
            raise UserError(f'no trained model in {folder}: train one, or name one with --model')
        choices += found
    for choice in choices:
        if '://' not in choice.weights and '/' in choice.weights:
            if not Path(choice.weights).exists():
                raise UserError(f'checkpoint {choice.weights} does not exist')
    try:
        server = PageServer(ModelShelf(choices, device=args.device), host=args.host, port=args.port)
    except (OSError, OverflowError, ValueError) as error:
        raise UserError(f'cannot listen at {args.host}:{args.port}: {error}') from error
    if not server.is_local:
        print(f'warning: anybody who reaches {args.host} can use this page', file=sys.stderr)
    print(f'{len(choices)} models at {server.url} (Ctrl-C ends)', flush=True)
    with server:
        server.serve_forever()


if __name__ == '__main__':
    run_tool(main)
