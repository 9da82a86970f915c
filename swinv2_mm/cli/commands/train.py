"""Train a detector, segmentor or classifier from a config.

Exit status: 0 after the last iteration; 75 after SIGTERM or SIGUSR1, once a checkpoint is saved
(go on with --resume); 1 after an error; 130 after Ctrl-C. See docs/fault_tolerance.md.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import (
    WEIGHTS,
    add_cfg_options,
    add_config,
    add_launcher,
    add_trust,
    add_work_dir,
    call,
    command_line,
    new_parser,
    run_command,
)

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def train(
    cfg: str | Path | Config,
    *,
    work_dir: str | Path | None = None,
    resume: str | Path | None = None,
    resume_with: Sequence[str] = (),
    amp: bool = False,
    auto_scale_lr: bool = False,
    options: Sequence[str] = (),
    launcher: str = 'none',
) -> Runner:
    """Train a model.

    Args:
        cfg: A config file, or a config, which is not modified.
        work_dir: Folder for logs and checkpoints; default ``work_dirs/NAME_OF_THE_CONFIG``.
        resume: A checkpoint to resume, or ``'auto'`` for the newest readable one in the work dir.
        resume_with: What a resumed training takes from the config and not from the checkpoint: any
            of ``lr``, ``schedule``, ``weight_decay``, ``optimizer``, ``seed``.
        amp: Whether to train in mixed precision (GPU).
        auto_scale_lr: Whether to scale the learning rate with the global batch size.
        options: Overrides of config entries, as ``key=value``.
        launcher: How the processes of a distributed job were started: ``none``, ``pytorch``,
            ``slurm`` or ``mpi``.

    Returns:
        The Runner, with the trained model in ``model``.

    Raises:
        UserError: If the config, the data or a checkpoint does not fit what is asked.
    """
    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models  # noqa: F401
    from swinv2_mm.config.datasets import check_data
    from swinv2_mm.config.entries import read_entry
    from swinv2_mm.config.file import as_config
    from swinv2_mm.config.values import check_values
    from swinv2_mm.data_check.guard import guard_data
    from swinv2_mm.engine.config_errors import config_errors
    from swinv2_mm.engine.launch import build_runner, save_config
    from swinv2_mm.engine.prediction_images import PredictionImagesHook, backends_of_images
    from swinv2_mm.engine.preflight import check_training
    from swinv2_mm.engine.work_dir import checkpoints_in
    from swinv2_mm.errors import UserError
    from swinv2_mm.inference.drawing import drawing_of

    cfg = as_config(cfg, options)
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _scale_lr(cfg)
    check_values(cfg, ['train_dataloader', 'val_dataloader'])
    check_data(cfg, ['train_dataloader', 'val_dataloader'])
    running = copy.deepcopy(cfg)
    if resume_with:
        if resume is None and not cfg.get('resume'):
            raise UserError('--resume-with is for a training that is resumed: add --resume')
        running.resume_with = list(resume_with)
    read_entry(running, 'resume_with')
    if resume is not None:
        running.resume = True
        if resume == 'auto':
            # What the Runner starts from if there is nothing to resume yet.
            running.start_from, running.load_from = cfg.get('load_from'), None
        else:
            running.load_from = str(resume)
    runner = build_runner(running, work_dir=work_dir, launcher=launcher)
    if not running.get('resume') and (earlier := checkpoints_in(Path(runner.work_dir))):
        runner.logger.warning(
            f'{runner.work_dir} holds {len(earlier)} checkpoints of an earlier training, such as '
            f'{earlier[0].name}; those of the same name are overwritten (--resume goes on)'
        )
    save_config(cfg, runner)
    guard_data(runner, ['train', 'val'])
    if backends_of_images(runner.cfg):
        runner.register_hook(PredictionImagesHook(drawing_of(runner, loader='val')))
    with config_errors(cfg):
        check_training(runner, cfg)
        runner.train()
    return runner


def _use_amp(cfg: Config) -> None:
    import torch

    from swinv2_mm.errors import UserError

    if not torch.cuda.is_available():
        raise UserError('--amp needs a GPU; leave it out to train on the CPU')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _scale_lr(cfg: Config) -> None:
    from swinv2_mm.errors import UserError

    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError(
            '--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config: '
            'the global batch that its learning rate is meant for'
        )
    cfg.auto_scale_lr.enable = True


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s configs/classification/swinv2-nano-w8_flowers.py
        %(prog)s CONFIG --resume
        %(prog)s CONFIG --resume --resume-with lr --cfg-options optim_wrapper.optimizer.lr=1e-4
        %(prog)s CONFIG --cfg-options train_dataloader.batch_size=4 randomness.seed=1
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
        help='resume CKPT, or, without one, the newest readable checkpoint in the work dir',
    ).completer = WEIGHTS
    run.add_argument(
        '--resume-with',
        type=lambda text: [name.strip() for name in text.split(',')],
        default=(),
        metavar='NAME,...',
        help='settings to take from the config, not from the checkpoint: lr, schedule, '
        'weight_decay, optimizer (its other settings), seed',
    )
    run.add_argument('--amp', action='store_true', help='train in mixed precision (GPU)')
    run.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate with the global batch, by the config's auto_scale_lr",
    )
    add_launcher(run)
    add_trust(run)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(build_parser(), argv, lambda args: _print_next(call(train, args)), runs_model=True)


def _print_next(runner: Runner) -> None:
    """Print what to do with a model that has been trained."""
    from mmengine.dist import is_main_process

    from swinv2_mm.config.datasets import image_folders
    from swinv2_mm.engine.launch import saved_config

    config, folder = saved_config(runner), Path(runner.work_dir)
    # Not what an earlier training has left in the folder.
    known = runner.message_hub.runtime_info
    keys = [*sorted(key for key in known if key.startswith('best_ckpt')), 'last_ckpt']
    named = [Path(str(known[key])) for key in keys if key in known]
    saved = [path for name in named for path in (name, folder / name.name) if path.exists()]
    if not (is_main_process() and runner.cfg.get('test_dataloader') and saved):
        return
    weights = saved[0]
    images = next(iter(image_folders(runner.cfg, 'test_dataloader')), 'IMAGES')
    print('Next:')
    print(' ', command_line('test', config, weights, '--show-dir', Path(folder, 'pictures')))
    print(' ', command_line('report', folder))
    print(' ', command_line('infer', images, '--config', config, '--weights', weights))
