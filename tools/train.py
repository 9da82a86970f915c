# PYTHON_ARGCOMPLETE_OK
"""Train a detector, segmentor or classifier from a config.

Exit status: 0 after the last iteration; 75 if SIGTERM or SIGUSR1 came before it and all is saved
(go on with --resume); 1 after an error; 130 after Ctrl-C. See docs/fault_tolerance.md.
"""

from __future__ import annotations

import argparse

from swinv2_mm.command_line import (
    WEIGHTS,
    add_cfg_options,
    add_config,
    add_launcher,
    add_trust,
    add_work_dir,
    new_parser,
    parse,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/train.py configs/classification/swinv2-nano-w8_flowers.py
        python tools/train.py CONFIG --resume
        python tools/train.py CONFIG --cfg-options train_dataloader.batch_size=4 randomness.seed=1
        tools/dist_train.sh CONFIG 8 --amp --auto-scale-lr
        """,
    )
    add_config(parser)
    add_work_dir(parser)
    add_cfg_options(parser)
    run = parser.add_argument_group('the run')
    run.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='go on from CKPT, or, without one, from the newest readable one in the work dir',
    ).completer = WEIGHTS
    run.add_argument('--amp', action='store_true', help='train in mixed precision (GPU)')
    run.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate with the global batch, by the config's auto_scale_lr",
    )
    add_launcher(run)
    add_trust(run)
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import torch
from mmengine.config import Config

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.datasets import check_data
from swinv2_mm.config.file import load_config
from swinv2_mm.data_check.guard import guard_data
from swinv2_mm.engine.launch import build_runner, naming_broken_annotations, run_tool
from swinv2_mm.errors import UserError


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
