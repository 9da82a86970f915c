"""Apply the config entries ``parallel``, ``accumulate`` and ``precision``."""

from __future__ import annotations

from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.utils import is_list_of

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


def _shard_optimizer(wrapper: dict) -> None:
    kind = wrapper['optimizer']['type']
    if kind == 'ZeroRedundancyOptimizer':
        return
    if not isinstance(getattr(torch.optim, kind, None), type):
        raise UserError(f'parallel: zero1 shards the optimisers of torch.optim, not {kind}')
    wrapper['optimizer'].update(type='ZeroRedundancyOptimizer', optimizer_type=kind)
