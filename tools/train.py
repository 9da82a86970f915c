"""Train a detector, segmentor or classifier from a config."""

from __future__ import annotations

import argparse

import torch
from mmengine.config import Config

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.engine.config_file import check_data, load_config
from swinv2_mm.engine.data_guard import guard_data
from swinv2_mm.engine.launch import (
    add_common_arguments,
    build_runner,
    naming_broken_annotations,
    run_tool,
)
from swinv2_mm.engine.preemption import PREEMPTED_STATUS
from swinv2_mm.errors import UserError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f'Exit status: 0 after the last iteration; {PREEMPTED_STATUS} if SIGTERM or SIGUSR1 '
        'came before it and all is saved (go on with --resume); 1 after an error; 130 after '
        'Ctrl-C. See docs/fault_tolerance.md.',
    )
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='go on from CKPT, or, without one, from the newest readable one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate with the global batch, by the config's auto_scale_lr",
    )
    return parser.parse_args()


def apply_switches(cfg: Config, args: argparse.Namespace) -> None:
    """Carry the switches of the command line into the config."""
    if args.amp:
        if not torch.cuda.is_available():
            raise UserError('--amp needs a GPU; leave it out to train on the CPU')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(
                '--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config: '
                'the global batch that its learning rate is meant for'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        if args.resume == 'auto':
            # What the runner starts from if there is nothing to resume yet.
            cfg.start_from, cfg.load_from = cfg.get('load_from'), None
        else:
            cfg.load_from = args.resume


def main() -> None:
    """Train."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    apply_switches(cfg, args)
    check_data(cfg, ['train_dataloader', 'val_dataloader'])
    runner = build_runner(cfg, args)
    guard_data(runner, ['train', 'val'])
    naming_broken_annotations(cfg, runner.train)


if __name__ == '__main__':
    run_tool(main)
