"""Build the Runner of a command, and save its config."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed, is_main_process
from mmengine.runner import Runner

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.errors import UserError

from .config_errors import config_errors
from .log_backends import add_log_backends
from .metric_names import EmptyDetectionHook
from .parallel import apply_parallel, process_timeout
from .runner import CheckedRunner
from .seeding import use_seeded_sampler


def default_work_dir(cfg: Config) -> str:
    """Return the folder for logs and checkpoints of a config.

    Raises:
        UserError: If the config neither names one nor comes from a file.
    """
    if cfg.get('work_dir'):
        return cfg.work_dir
    if cfg.filename is None:
        raise UserError('work_dir: a config that is no file needs the folder to write to')
    return f'work_dirs/{Path(cfg.filename).stem}'


def build_runner(
    cfg: Config, *, work_dir: str | Path | None = None, launcher: str = 'none'
) -> Runner:
    """Build the Runner of a config.

    Args:
        cfg: A whole config; it is not modified.
        work_dir: Folder for logs and checkpoints; default that of the config.
        launcher: How the processes of a distributed job were started.

    Raises:
        UserError: If a value in the config does not fit the class that takes it.
    """
    cfg = copy.deepcopy(cfg)
    cfg.launcher = launcher
    cfg.work_dir = str(work_dir or default_work_dir(cfg))
    if cfg.launcher != 'none' and not torch.cuda.is_available() and not is_distributed():
        # MMEngine's own start-up asks for a GPU.
        if cfg.launcher != 'pytorch':
            raise UserError(f'--launcher {cfg.launcher} needs GPUs; pytorch works without')
        torch.distributed.init_process_group('gloo', timeout=process_timeout(cfg))
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--work-dir {cfg.work_dir}: {error.strerror or error}') from error
    apply_parallel(cfg)
    add_log_backends(cfg)
    use_seeded_sampler(cfg)
    with config_errors(cfg):
        runner = CheckedRunner.from_cfg(cfg)
    runner.register_hook(EmptyDetectionHook(cfg))
    return runner


def save_config(cfg: Config, runner: Runner) -> None:
    """Save the config of a training in its work dir: the user's, merged with its bases.

    Args:
        cfg: The config before anything of the run was written into it.
        runner: Runner of the training.

    Raises:
        UserError: If it cannot be written.
    """
    if is_main_process():
        cfg = copy.deepcopy(cfg)
        cfg.work_dir = runner.work_dir
        atomic_write(saved_config(runner), cfg.pretty_text)


def saved_config(runner: Runner) -> Path:
    """Return the file that ``save_config`` writes for a training."""
    filename = runner.cfg.filename
    return Path(runner.work_dir, f'{Path(filename).stem if filename else runner.timestamp}.py')
