# PYTHON_ARGCOMPLETE_OK
"""Benchmark SwinV2 and its peer implementations: one process, same weights, interleaved runs.

A case is ARCH-SIZE-wWINDOW, such as b-384-w24 or t-800x1344-w16 (first letter of the arch, pixels,
tokens), or a whole model: cascade-mask-rcnn, upernet. The limit is the time of the matrix
products alone.
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
        python benchmarks/run.py --cases t-256-w8 --peers timm --json figures.json
        python benchmarks/run.py --cases b-384-w24 --attention sdpa sequential --compile
        python benchmarks/run.py --cases upernet --peers none --mode training --dtype bf16
        """,
    )
    add = parser.add_argument_group('what to compare').add_argument
    add('--cases', nargs='+', metavar='CASE', help='default: all but the largest')
    add('--peers', nargs='+', default=['all'], metavar='NAME', help='all, none, or names')
    add(
        '--attention',
        nargs='+',
        default=['auto'],
        metavar='BACKEND[+cp]',
        help='ways to run our own: a backend, or one per stage with commas; +cp: with_cp',
    )
    modes = ['forward', 'training']
    add('--mode', nargs='+', choices=modes, default=modes, help='what is timed')
    add(
        '--dtype',
        nargs='+',
        choices=['float32', 'bf16', 'fp16'],
        default=['float32'],
        help='autocast type',
    )
    add(
        '--compile',
        nargs='?',
        choices=['no', 'yes', 'both'],
        default='no',
        const='yes',
        help='torch.compile',
    )
    add('--batch', type=int, metavar='N', help='images at once, in place of those of the case')
    add('--size', type=int, nargs=2, metavar=('H', 'W'), help='pixels, in place of the case')
    add('--depths', type=int, nargs='+', metavar='N', help='blocks per stage, to shorten a case')
    add = parser.add_argument_group('how to measure').add_argument
    add('--device', metavar='NAME', help='cpu or cuda; default: a GPU if there is one')
    add('--threads', type=int, metavar='N', help='of the CPU; default: what torch takes')
    add('--rounds', type=int, default=10, metavar='N', help='samples; 0 measures memory only')
    add('--json', type=Path, metavar='FILE', help='write all figures')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import json
import logging
import shlex
import sys
import warnings
from datetime import datetime, timezone
from itertools import product

import torch
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

# Run as a script, this file finds its package beside the project's own.
sys.path.append(str(Path(__file__).resolve().parents[1]))

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from benchmarks.backbones import Variant, describe_attention
from benchmarks.cases import DEFAULT_CASES, TASKS, Case, parse_case
from benchmarks.machine import describe_machine, installed_versions, summarize_machine
from benchmarks.memory_use import bounded_process
from benchmarks.result_tables import growth_exponents, result_of, table_of
from benchmarks.steps import Setting, all_peers, builders_of
from benchmarks.timing import time_interleaved
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli.running import run_tool
from swinv2_mm.errors import UserError

# Width of a table in a file.
_WIDTH = 110


def read_peers(names: list[str]) -> tuple[str, ...]:
    """Check the names of the peers."""
    if names in (['all'], ['none']):
        return all_peers() if names == ['all'] else ()
    if unknown := sorted(set(names) - set(all_peers())):
        raise UserError(
            f"--peers: unknown '{unknown[0]}' (known: all, none, {', '.join(all_peers())})"
        )
    return tuple(names)


def read_device(name: str | None) -> torch.device:
    """Check that the device is there, or choose one."""
    if name is None:
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    if name not in ('cpu', 'cuda'):
        raise UserError(f"--device is cpu or cuda, got '{name}'")
    if name == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no GPU; write --device cpu')
    return torch.device(name)


def run(
    args: argparse.Namespace, cases: list[Case], device: torch.device, console: Console
) -> None:
    """Measure and print case after case."""
    peers, variants = read_peers(args.peers), [Variant.parse(text) for text in args.attention]
    console.print(summarize_machine(device))
    compiled = {'no': (False,), 'yes': (True,), 'both': (False, True)}[args.compile]
    results = []
    columns = (TextColumn('{task.description}'), BarColumn(), TimeElapsedColumn())
    for case, mode, dtype, is_compiled in product(cases, args.mode, args.dtype, compiled):
        if case.task and mode == 'forward':
            continue
        setting = Setting(mode, dtype, is_compiled, device)
        builders = builders_of(case, setting=setting, variants=variants, peers=peers)
        torch.compiler.reset()
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(case.name, total=len(builders) * (1 + args.rounds))

            def advance(name: str, progress=progress, task=task, case=case) -> None:  # noqa: ANN001
                progress.update(task, advance=1, description=f'{case.name} {name}')

            outcomes = time_interleaved(
                builders, device=device, rounds=args.rounds, advance=advance
            )
        if case.task is None and device.type == 'cpu':
            training = mode == 'training'
            for variant in variants:
                choice = describe_attention(
                    case, variant=variant, training=training, compiled=is_compiled
                )
                console.print(f'ours {variant}: {choice}')
        results.append(result_of(outcomes, case=case, setting=setting))
        console.print(table_of(results[-1]))
        if args.json is not None:
            # After each case, in case the machine has no memory, or nobody the time, for the next.
            write_report(args.json, results, device=device)
    for what, exponent in growth_exponents(results).items():
        console.print(f'time of an image grows with pixels ^ {exponent:.3f} ({what})')


def write_report(path: Path, results: list[dict], *, device: torch.device) -> None:
    """Write all figures with what they depend on."""
    report = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.now(timezone.utc).isoformat(timespec='minutes'),
        'machine': describe_machine(device),
        'versions': installed_versions(),
        'results': results,
    }
    atomic_write(path, json.dumps(report, indent=1) + '\n')


def main() -> None:
    """Measure."""
    args = parse_args()
    device = read_device(args.device)
    if args.rounds < 0 or (args.threads is not None and args.threads < 1):
        raise UserError('--rounds must not be negative, --threads positive')
    cases = [
        parse_case(
            name,
            on_gpu=device.type == 'cuda',
            batch=args.batch,
            depths=args.depths,
            size_px=args.size,
        )
        for name in args.cases or [*DEFAULT_CASES, *TASKS]
    ]
    if args.threads:
        torch.set_num_threads(args.threads)
    # What other libraries say while they are built; what matters is in the table.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    warnings.simplefilter('ignore')
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    with bounded_process(device):
        run(args, cases, device, console)


if __name__ == '__main__':
    run_tool(main)
