"""Apply the config entries that say how a training is distributed, and in which precision."""

from __future__ import annotations

from datetime import timedelta
from logging import Logger
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.utils import is_list_of
from torch import nn

from swinv2_mm.config.entries import read_entry
from swinv2_mm.errors import UserError

_PRECISIONS = {
    'bf16': {'type': 'Bfloat16OptimWrapper'},
    'fp16': {'type': 'AmpOptimWrapper', 'loss_scale': 'dynamic'},
}
_TIMEOUT_S = 1800
_FOR_CPU = 'on a CPU write precision=bf16, or leave it out'


def process_timeout(cfg: Config) -> timedelta:
    """Return how long processes wait for each other: ``env_cfg.dist_cfg.timeout``, in seconds.

    torch gives it to the first group of processes only: every other group must be given it.
    """
    settings = cfg.get('env_cfg', {}).get('dist_cfg', {})
    return timedelta(seconds=settings.get('timeout', _TIMEOUT_S))


def apply_parallel(cfg: Config) -> None:
    """Carry ``parallel``, ``accumulate`` and ``precision`` into the entries that MMEngine reads.

    ``config.entries`` defines the values of each; ``parallel`` becomes a dict.

    Raises:
        UserError: If one is not valid, or does not go with the rest of the config.
    """
    cfg.parallel = options = read_entry(cfg, 'parallel')
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        return
    if precision := read_entry(cfg, 'precision'):
        wrapper.update(_PRECISIONS[precision])
    if (accumulate := read_entry(cfg, 'accumulate')) > 1:
        wrapper.accumulative_counts = accumulate
    if wrapper.get('type') == 'AmpOptimWrapper' and not torch.cuda.is_available():
        raise UserError(f'AmpOptimWrapper (--amp, precision=fp16) needs a GPU; {_FOR_CPU}')
    if cfg.launcher == 'none':
        return
    if options['type'] == 'zero1':
        _shard_optimizer(wrapper)
    if options['type'] == 'fsdp' and torch.cuda.is_available():
        # Checkpoints are put together in the memory of the CPU.
        cfg.env_cfg.dist_cfg.backend = 'cpu:gloo,cuda:nccl'
    if options['type'] != 'ddp' and is_list_of(cfg.get('custom_hooks'), dict):
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='OptimizerStateHook')]


def ddp_on_cpu(cfg: Config) -> dict[str, Any]:
    """Return the settings of DDP without GPUs; MMEngine's default asks for one each."""
    return {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': read_entry(cfg, 'find_unused_parameters'),
    }


def with_sync_bn(model: nn.Module, cfg: Config, *, logger: Logger) -> nn.Module:
    """Convert the batch norms of a model as ``sync_bn`` says; without GPUs to plain ones."""
    if torch.cuda.is_available():
        implementation = read_entry(cfg, 'sync_bn')
        return convert_sync_batchnorm(model, implementation) if implementation else model
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        logger.warning(
            'SyncBN works on GPUs only: here each process takes its own statistics, so that '
            'results depend on the number of processes'
        )
        return revert_sync_batchnorm(model)
    return model


def _shard_optimizer(wrapper: dict) -> None:
    kind = wrapper['optimizer']['type']
    if kind == 'ZeroRedundancyOptimizer':
        return
    if not isinstance(getattr(torch.optim, kind, None), type):
        raise UserError(f'parallel: zero1 shards the optimisers of torch.optim, not {kind}')
    wrapper['optimizer'].update(type='ZeroRedundancyOptimizer', optimizer_type=kind)
