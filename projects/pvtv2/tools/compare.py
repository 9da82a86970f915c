# PYTHON_ARGCOMPLETE_OK
"""Compare models side by side: parameters, FLOPs, speed and memory, from their configs.

Heads run on as many empty regions as the config samples; sampling, NMS and losses are left out.
A table is printed in Markdown; times are medians over rounds in which all models take turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import CONFIGS, add_device, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python projects/pvtv2/tools/compare.py CONFIG CONFIG --shape 256 256 --batch 2
        python projects/pvtv2/tools/compare.py CONFIG --rounds 0 --out table.md
        """,
    )
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG', help='of one task or of several'
    ).completer = CONFIGS
    add = parser.add_argument
    add('--shape', type=int, nargs=2, metavar=('H', 'W'), default=[256, 256], help='in pixels')
    add('--batch', type=int, default=1, metavar='N', help='images at once')
    add('--rounds', type=int, default=5, metavar='N', help='samples of each; 0: no times')
    add_device(parser)
    add('--threads', type=int, metavar='N', help='of the CPU; default: what torch takes')
    add('--out', type=Path, metavar='FILE.md', help='write the table')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import sys
from functools import partial

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[3]))  # where benchmarks/ lies

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from benchmarks.timing import Candidate, Outcome, Spread, time_interleaved
from swinv2_mm.analysis.fake_model import build_fake, fake_images
from swinv2_mm.analysis.fixed_cost import FixedCost
from swinv2_mm.analysis.operations import count_macs
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import UserError

_COLUMNS = (
    'model', 'parameters (M)', 'GFLOPs', 'inference (images/s)', 'training (images/s)',
    'training memory (MiB/image)',
)  # fmt: skip


def candidate(path: str, *, images: Tensor, training: bool) -> Candidate:
    """Build the model of a config, with random weights, and its step."""
    cfg = load_config(path)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        model = revert_sync_batchnorm(registry.build(cfg.model))
    network = FixedCost(model).to(images.device).train(training)

    def forward() -> list[Tensor]:
        with torch.set_grad_enabled(training):
            return network(images)

    def step() -> None:
        network.zero_grad()
        outputs = forward()
        if training:
            sum(output.float().mean() for output in outputs).backward()

    return Candidate(step, forward, network)


def fixed_figures(path: str, *, size_px: tuple[int, int]) -> tuple[int, int]:
    """Return the parameters and the multiply-accumulates per image of a config's model."""
    cfg = load_config(path)
    model = build_fake(cfg.model, scope=cfg.default_scope)
    macs = count_macs(FixedCost(model), fake_images(model, batch=1, size_px=size_px))
    return sum(p.numel() for p in model.parameters()), macs['']


def main() -> None:
    """Measure and print."""
    args = parse_args()
    if min(*args.shape, args.batch) < 1 or args.rounds < 0:
        raise UserError('--shape and --batch take positive numbers, --rounds none below 0')
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError('--device cuda: there is no GPU')
    if args.threads:
        torch.set_num_threads(args.threads)
    device, names = torch.device(args.device), {Path(p).stem: p for p in args.configs}
    images = torch.randn(args.batch, 3, *args.shape, device=device)
    figures = {name: fixed_figures(path, size_px=tuple(args.shape)) for name, path in names.items()}
    outcomes: dict[bool, list[Outcome]] = {}
    for training in (False, True):
        builders = {
            name: partial(candidate, path, images=images, training=training)
            for name, path in names.items()
        }
        outcomes[training] = time_interleaved(builders, device=device, rounds=args.rounds)
    rows = [_COLUMNS, ('---',) * len(_COLUMNS)]
    for testing, training in zip(outcomes[False], outcomes[True], strict=True):
        params, macs = figures[testing.name]
        row = [testing.name, f'{params / 1e6:.2f}', f'{macs / 1e9:.2f}']
        row += [_speed(testing, args.batch), _speed(training, args.batch)]
        use = training.memory
        num_bytes = use and (use.peak if use.peak is not None else use.tensors)
        row.append(f'{num_bytes / 2**20 / args.batch:.0f}' if num_bytes else 'not measured')
        rows.append(tuple(row))
    table = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    print(table)
    if args.out is not None:
        atomic_write(args.out, table + '\n')


def _speed(outcome: Outcome, batch: int) -> str:
    if outcome.reason:
        return f'cannot: {outcome.reason}'
    return f'{batch / Spread.of(outcome.seconds).median:.2f}' if outcome.seconds else 'not measured'


if __name__ == '__main__':
    run_tool(main)
