"""Serve a web page on which trained models can be tried with own images; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from swinv2_mm.cli.arguments import FOLDERS, add_device, call, new_parser, run_command
from swinv2_mm.errors import UserError

_DAY_S = 86_400


def demo(
    models: Sequence[tuple[str, str]] = (),
    *,
    work_dirs: str | Path | None = None,
    device: str | None = None,
    host: str = '127.0.0.1',
    port: int = 8000,
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        models: Configs with their weights.
        work_dirs: Folder whose trainings are offered too; default ``work_dirs`` without ``models``.
        device: Such as ``cuda:1``; default a GPU if there is one.
        host: Address to listen at; others than 127.0.0.1 let anybody in the network use the page.
        port: 0 for any that is free.

    Raises:
        UserError: If there is no such model, Gradio is not installed, or nothing can listen there.
    """
    from swinv2_mm.demo_page.model_shelf import ModelShelf, describe_model, find_models
    from swinv2_mm.demo_page.page import serving

    choices = [describe_model(config, weights) for config, weights in models]
    for _, weights in models:
        if '://' not in weights and '/' in weights and not Path(weights).exists():
            raise UserError(f'checkpoint {weights} does not exist')
    if work_dirs is not None or not choices:
        folder = Path(work_dirs or 'work_dirs')
        found, left_out = find_models(folder)
        for reason in left_out:
            print(f'left out: {reason}')
        if not found and not choices:
            raise UserError(f'no trained model in {folder}: train one, or name one with --model')
        choices += found
    with serving(ModelShelf(choices, device=device), host=host, port=port) as url:
        print(f'{len(choices)} models at {url} (Ctrl-C ends)', flush=True)
        while True:
            time.sleep(_DAY_S)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s
        %(prog)s --model CONFIG CKPT --model OTHER_CONFIG OTHER_CKPT --port 0
        """,
    )
    models = parser.add_argument_group('models on offer')
    models.add_argument(
        '--model',
        dest='models',
        nargs=2,
        action='append',
        default=[],
        metavar=('CONFIG', 'WEIGHTS'),
        help='one model; may be repeated',
    )
    models.add_argument(
        '--work-dirs',
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
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(build_parser(), argv, lambda args: call(demo, args))
