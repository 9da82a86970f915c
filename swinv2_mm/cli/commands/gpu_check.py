"""Check a GPU: which attention backends work there, how exact and fast they are, beside timm.

Takes at most ten minutes. ``--device cpu`` runs the same on small sizes. Exit status 1 if a result
is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import add_device, call, new_parser, run_command
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from swinv2_mm.analysis.gpu_check import Row

# Columns: name of the figure in a row, heading, format.
_COLUMNS = (
    ('error', 'error', '.1e'),
    ('error_gradients', 'of gradients', '.1e'),
    ('ms_inference', 'ms inference', '.2f'),
    ('ms_step', 'ms step', '.2f'),
    ('ms_graph', 'ms graph', '.2f'),
    ('mib', 'MiB of a step', ',.0f'),
)
_WIDTH = 150


def gpu_check(
    *,
    device: str | None = None,
    minutes: float = 10.0,
    out: str | Path | None = None,
    on_row: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """Check the backends of attention, whole backbones, CUDA graphs and synchronizations.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; default a GPU if there is one.
        minutes: No check begins after so long.
        out: JSON file to write, after each row.
        on_row: Is called with each row as it is found.

    Returns:
        What was found.

    Raises:
        UserError: If there is no such device.
    """
    import torch

    from swinv2_mm.analysis.gpu_check import describe, run_checks
    from swinv2_mm.atomic_write import atomic_write

    name = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    kind = name.partition(':')[0]
    if kind not in ('cpu', 'cuda') or (kind == 'cuda' and not torch.cuda.is_available()):
        raise UserError(f'--device {name}: torch sees no such device; write --device cpu')
    if minutes <= 0:
        raise UserError(f'--minutes must be positive, got {minutes}')
    target = torch.device(name)
    if kind == 'cuda':
        torch.cuda.set_device(target)
    machine, rows = describe(target), []
    for row in run_checks(target, seconds=60 * minutes):
        rows.append(row)
        on_row(row)
        if out is not None:
            report = {'machine': machine, 'rows': [asdict(row) for row in rows]}
            atomic_write(out, json.dumps(report, indent=1) + '\n')
    return rows


def _table(rows: Sequence[Row]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table('check', 'case', 'backend')
    shown = [column for column in _COLUMNS if any(column[0] in row.figures for row in rows)]
    for _, head, _ in shown:
        table.add_column(head, justify='right')
    table.add_column('')
    for row in rows:
        texts = [
            format(row.figures[key], form) if key in row.figures else '' for key, _, form in shown
        ]
        note = ' '.join(filter(None, ('WRONG' * row.is_wrong, row.note)))
        table.add_row(row.check, row.case, row.name, *texts, escape(note))
    return table


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s --out gpu.json
        %(prog)s --device cpu
        """,
    )
    add_device(parser)
    parser.add_argument(
        '--minutes', type=float, default=10.0, metavar='N', help='no check begins after so long'
    )
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write all figures')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(width=None if sys.stdout.isatty() else _WIDTH)
        columns = (SpinnerColumn(), TextColumn('{task.description}'), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task('')

            def show(row: Row) -> None:
                progress.update(task, description=f'{row.check}, {row.case}, {row.name}')

            rows = call(gpu_check, args, on_row=show)
        console.print(_table(rows))
        if any(row.is_wrong for row in rows):
            raise UserError('some results are wrong: see the rows that say so')

    run_command(build_parser(), argv, run)
