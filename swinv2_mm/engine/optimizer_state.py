"""Measure the memory of the optimizer state, per process and in total."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.distributed.tensor import DTensor


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Count the bytes of the state that this process holds."""
    # The optimizer inside ZeroRedundancyOptimizer holds this process's part.
    inner = getattr(optimizer, 'optim', optimizer)
    total = 0
    for state in inner.state.values():
        for value in state.values():
            value = value.to_local() if isinstance(value, DTensor) else value
            if isinstance(value, torch.Tensor):
                total += value.numel() * value.element_size()
    return total


@HOOKS.register_module()
class OptimizerStateHook(Hook):
    """Log once, after the first update, how the optimizer state is sharded."""

    def __init__(self) -> None:
        self._is_done = False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log it."""
        if self._is_done or not runner.optim_wrapper.should_update():
            return
        self._is_done = True
        own = state_bytes(runner.optim_wrapper.optimizer)
        total = torch.tensor(own)
        all_reduce(total)
        runner.logger.info(
            f'optimiser state: {own:,} bytes in this process, {int(total):,} in all '
            f'{get_world_size()}'
        )
