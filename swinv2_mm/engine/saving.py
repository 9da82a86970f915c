"""Collect the contents of a training checkpoint from a Runner."""

from __future__ import annotations

import time
from typing import Any

import mmengine
from mmengine.runner import Runner, weights_to_cpu
from mmengine.utils import apply_to
from torch import Tensor

from swinv2_mm.core.unwrapping import unwrapped


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


def _on_cpu(tree: Any) -> Any:
    return apply_to(tree, lambda value: isinstance(value, Tensor), lambda value: value.cpu())
