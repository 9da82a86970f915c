"""Collect a training checkpoint from a Runner, and write it atomically."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mmengine
from mmengine.dist import is_main_process
from mmengine.fileio import join_path
from mmengine.runner import Runner, save_checkpoint, weights_to_cpu
from mmengine.utils import apply_to
from torch import Tensor

from swinv2_mm.atomic_write import discard, publish
from swinv2_mm.checkpoint.sharded import REST
from swinv2_mm.core.cpu_kernels import cpu_rule
from swinv2_mm.core.unwrapping import unwrapped
from swinv2_mm.errors import UserError

from .sharded_training import ZeroOptimizer


def training_checkpoint(
    runner: Runner,
    *,
    meta: dict | None = None,
    by_epoch: bool = True,
    save_optimizer: bool = True,
    save_param_scheduler: bool = True,
) -> dict[str, Any]:
    """Collect a checkpoint in MMEngine's format, on the CPU; hooks then add theirs.

    Sharded tensors stay sharded. Arguments are those of ``Runner.save_checkpoint``, which writes
    on the main process only and so cannot be used where the others hold a part.
    """
    # The hook saves before the loop counts what has just been trained.
    counts = {'epoch': runner.epoch + by_epoch, 'iter': runner.iter + (not by_epoch)}
    meta = counts | (meta or {})
    meta |= {
        'cfg': runner.cfg.pretty_text,
        'seed': runner.seed,
        'experiment_name': runner.experiment_name,
        'time': time.strftime('%Y%m%d_%H%M%S', time.localtime()),
        'mmengine_version': mmengine.__version__,
    }
    if next(runner.model.parameters()).device.type == 'cpu':
        meta['cpu_kernels'] = cpu_rule().name
    if hasattr(runner.train_dataloader.dataset, 'metainfo'):
        meta['dataset_meta'] = runner.train_dataloader.dataset.metainfo
    checkpoint = {
        'meta': meta,
        'state_dict': weights_to_cpu(unwrapped(runner.model).state_dict()),
        'message_hub': _on_cpu(runner.message_hub.state_dict()),
    }
    if save_optimizer:
        checkpoint['optimizer'] = _on_cpu(runner.optim_wrapper.state_dict())
    if save_param_scheduler and runner.param_schedulers is not None:
        schedulers = runner.param_schedulers
        if isinstance(schedulers, dict):
            states = {name: [s.state_dict() for s in part] for name, part in schedulers.items()}
        else:
            states = [scheduler.state_dict() for scheduler in schedulers]
        checkpoint['param_schedulers'] = states
    return checkpoint


def write_checkpoint(
    checkpoint: dict[str, Any],
    folder: str | Path,
    *,
    name: str,
    sharding: ZeroOptimizer | None = None,
    backend_args: dict | None = None,
) -> None:
    """Write a checkpoint atomically; all processes of a sharded training call it.

    Args:
        checkpoint: What ``training_checkpoint`` returned.
        folder: Folder to write to; a URL goes to MMEngine's file backend.
        name: Name of the file, or of the folder of a sharded checkpoint.
        sharding: What shards the training.
        backend_args: Arguments of MMEngine's file backend.

    Raises:
        UserError: If it cannot be written; what was there before is untouched.
    """
    path = Path(folder, name)
    part = path.with_name(f'.{path.name}.part')
    try:
        if sharding:
            sharding.take_out(checkpoint, folder=part)
        if not is_main_process():
            return
        if '://' in str(folder):
            whole = join_path(folder, name, backend_args=backend_args)
            save_checkpoint(checkpoint, whole, backend_args=backend_args)
            return
        is_folder = sharding is not None and sharding.saves_folder
        save_checkpoint(checkpoint, str(part / REST if is_folder else part))
        publish(part, path)
    except OSError as error:
        raise UserError(
            f'checkpoint {path} cannot be written: {error.strerror or error}; earlier ones are '
            'untouched, go on with --resume'
        ) from error
    finally:
        if is_main_process():
            discard(part)


def _on_cpu(tree: Any) -> Any:
    return apply_to(tree, lambda value: isinstance(value, Tensor), lambda value: value.cpu())
