# PYTHON_ARGCOMPLETE_OK
"""Tell which options make the training of a config fit into a GPU's memory; runs without a GPU.

Options are added one after another, the cheapest first, until the estimate fits. Nothing is
allocated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import add_cfg_options, add_config, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/analysis/memory.py CONFIG --budget 24GB
        python tools/analysis/memory.py CONFIG --budget 40GB --batch 8 --zero-1 8 --all
        """,
    )
    add_config(parser)
    add_cfg_options(parser)
    add = parser.add_argument
    add('--budget', required=True, metavar='24GB', help='memory of one GPU')
    add(
        '--shape', type=int, nargs='+', metavar=('H', 'W'), help='default: what the config tests at'
    )
    add('--batch', type=int, metavar='N', help='images at once; default: as the config trains')
    add(
        '--zero-1',
        type=int,
        default=1,
        metavar='GPUS',
        help="share AdamW's states among so many, default 1",
    )
    add('--no-bf16', action='store_true', help='the GPU has no bfloat16')
    add('--all', action='store_true', help='go on after what fits')
    add('--out', type=Path, metavar='FILE.json', help='write all figures')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import json
import shlex
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.input_size import input_size_px
from swinv2_mm.analysis.memory_plan import estimate_plan, parse_budget, plans
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import UserError

_GIB = 2**30
# The rest is for the CUDA context and for what the allocator cannot use. An assumption.
_USABLE = 0.9


def main() -> None:
    """Estimate one plan after another."""
    args = parse_args()
    budget = parse_budget(args.budget)
    if args.batch is not None:
        args.cfg_options.append(f'train_dataloader.batch_size={args.batch}')
    cfg = load_config(args.config, args.cfg_options)
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        raise UserError(f'--shape takes one or two positive sides, got {args.shape}')
    size_px = (args.shape[0], args.shape[-1]) if args.shape else input_size_px(cfg)
    batch = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
    if batch < 1 or args.zero_1 < 1:
        raise UserError('--batch and --zero-1 must be positive')
    console = Console(width=None if sys.stdout.isatty() else 100)
    title = f'{batch} x {size_px[0]} x {size_px[1]} px, AdamW; each row adds to the one above'
    table = Table('', 'peak GiB', 'kept for backward GiB', 'work', 'fits', title=title)
    found, rows, first_flops = None, [], None
    with console.status('estimating') as status:
        for plan in plans(cfg, batch=batch, with_bf16=not args.no_bf16):
            status.update(f'estimating: {plan.words}')
            memory = estimate_plan(cfg, plan, size_px=size_px)
            states = memory.optimizer_states
            peak = memory.training - states + states // args.zero_1
            flops = memory.training_flops / plan.batch
            first_flops = first_flops or flops
            fits = peak <= _USABLE * budget
            rows.append({**asdict(plan), 'peak': peak, 'fits': fits, 'memory': asdict(memory)})
            table.add_row(
                plan.words,
                f'{peak / _GIB:.2f}',
                f'{memory.activations / _GIB:.2f}',
                f'{flops / first_flops:.2f}',
                'yes' if fits else 'no',
            )
            found = found or (plan if fits else None)
            if found and not args.all:
                break
    console.print(table)
    if args.out is not None:
        atomic_write(args.out, json.dumps({'config': args.config, 'plans': rows}, indent=1) + '\n')
    if found is None:
        raise UserError(
            f'nothing makes it fit into {_USABLE:.0%} of {budget / _GIB:.1f} GiB: take smaller '
            'images (--shape) or a smaller arch'
        )
    if found.options:
        print('--cfg-options ' + shlex.join([*args.cfg_options, *found.options]))
    else:
        print('it fits as it is')
    if any(option.startswith('accumulate=') for option in found.options):
        print('a schedule in iterations counts small batches then: multiply its numbers')


if __name__ == '__main__':
    run_tool(main)
