"""Find the options that make a training fit into the memory of a GPU; runs without a GPU.

Options are added one after another, the cheapest first, until the estimate fits. Nothing is
allocated.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import (
    add_cfg_options,
    add_config,
    add_shape,
    call,
    new_parser,
    parse_shape,
    run_command,
)
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from swinv2_mm.analysis.memory_plan import FittedPlan

_GIB = 2**30


def memory(
    cfg: str | Path | Config,
    *,
    budget: str,
    shape: Sequence[int] = (),
    batch: int | None = None,
    zero_1: int = 1,
    with_bf16: bool = True,
    with_all: bool = False,
    out: str | Path | None = None,
    options: Sequence[str] = (),
    on_plan: Callable[[str], object] = lambda words: None,
) -> list[FittedPlan]:
    """Estimate what a training takes under more and more options, until it fits.

    Args:
        cfg: A config file, or a config, which is not modified.
        budget: Memory of one GPU, such as ``24GB``.
        shape: Height and width of the image, or one side; default the size that the config tests
            at.
        batch: Images at once; default as the config trains.
        zero_1: GPUs that share the states of AdamW.
        with_bf16: Whether the GPU has bfloat16.
        with_all: Whether to go on after the first plan that fits.
        out: JSON file to write.
        options: Overrides of config entries, as ``key=value``.
        on_plan: Is called with the name of a plan before it is estimated.

    Returns:
        The plans in their order, to the first that fits.

    Raises:
        UserError: If the config is not valid, or a value does not fit.
    """
    size_px = parse_shape(shape)
    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.analysis.input_size import input_size_px
    from swinv2_mm.analysis.memory_plan import fitted_plans, parse_budget
    from swinv2_mm.atomic_write import atomic_write
    from swinv2_mm.config.file import as_config

    num_bytes = parse_budget(budget)
    cfg = as_config(cfg, options)
    batch = (cfg.get('train_dataloader') or {}).get('batch_size', 1) if batch is None else batch
    if batch < 1 or zero_1 < 1:
        raise UserError('--batch and --zero-1 must be positive')
    found = []
    for plan in fitted_plans(
        cfg,
        budget=num_bytes,
        batch=batch,
        size_px=size_px or input_size_px(cfg),
        zero_1=zero_1,
        with_bf16=with_bf16,
        on_plan=on_plan,
    ):
        found.append(plan)
        if plan.fits and not with_all:
            break
    if out is not None:
        result = {'config': cfg.filename, 'plans': [asdict(plan) for plan in found]}
        atomic_write(out, json.dumps(result, indent=1) + '\n')
    return found


def _print(plans: Sequence[FittedPlan], *, options: Sequence[str], budget: str) -> None:
    """Print the plans as a table, and the options of the first that fits.

    Raises:
        UserError: If none fits.
    """
    from rich.console import Console
    from rich.table import Table

    first = plans[0]
    height, width = first.size_px
    table = Table(
        '',
        'peak GiB',
        'kept for backward GiB',
        'work',
        'fits',
        title=f'{first.batch} x {height} x {width} px, AdamW; each row adds to the one above',
    )
    for plan in plans:
        table.add_row(
            plan.words,
            f'{plan.peak / _GIB:.2f}',
            f'{plan.memory.activations / _GIB:.2f}',
            f'{plan.flops_per_image / first.flops_per_image:.2f}',
            'yes' if plan.fits else 'no',
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    found = next((plan for plan in plans if plan.fits), None)
    if found is None:
        raise UserError(
            f'no plan fits into --budget {budget}, a tenth of it left free: take smaller images '
            '(--shape) or a smaller arch'
        )
    if found.options:
        print('--cfg-options ' + shlex.join([*options, *found.options]))
    else:
        print('it fits as it is')
    if any(option.startswith('accumulate=') for option in found.options):
        print('a schedule in iterations counts the smaller batches: multiply its numbers')


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s CONFIG --budget 24GB
        %(prog)s CONFIG --budget 40GB --batch 8 --zero-1 8 --all
        """,
    )
    add_config(parser)
    add_cfg_options(parser)
    add = parser.add_argument
    add('--budget', required=True, metavar='24GB', help='memory of one GPU')
    add_shape(parser, default='that of the test pipeline')
    add('--batch', type=int, metavar='N', help='batch size; default: that of training')
    add(
        '--zero-1',
        type=int,
        default=1,
        metavar='GPUS',
        help="number of GPUs that share AdamW's states, default 1",
    )
    add('--no-bf16', dest='with_bf16', action='store_false', help='the GPU has no bfloat16')
    add(
        '--all',
        dest='with_all',
        action='store_true',
        help='go on after the first plan that fits',
    )
    add('--out', type=Path, metavar='FILE.json', help='write all figures')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        from rich.console import Console

        with Console(stderr=True).status('estimating') as status:
            plans = call(memory, args, on_plan=lambda words: status.update(f'estimating: {words}'))
        batch = [] if args.batch is None else [f'train_dataloader.batch_size={args.batch}']
        _print(plans, options=[*args.options, *batch], budget=args.budget)

    run_command(build_parser(), argv, run)
