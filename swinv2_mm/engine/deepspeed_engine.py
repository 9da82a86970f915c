"""DeepSpeed's ZeRO stage 1 behind MMEngine's optimiser wrapper and model wrapper."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from swinv2_mm.mmengine_private import accumulation


class DeepSpeedOptimWrapper(OptimWrapper):
    """Lets a DeepSpeed engine run the backward pass, clip and update.

    MMEngine's own is no ``OptimWrapper``, which its Runner asks for.

    Args:
        engine: Of ``deepspeed.initialize``.
        accumulate: Iterations per update, for messages.
    """

    def __init__(self, engine: Any, *, accumulate: int) -> None:
        # The plain optimiser of this process's part of the parameters, a flat tensor per group.
        super().__init__(engine.optimizer.optimizer, accumulative_counts=accumulate)
        self.engine = engine

    def update_params(self, loss: torch.Tensor, **_: Any) -> None:
        """Do one iteration's share of an update, of which the engine counts when it is due."""
        self.backward(loss)
        self.step()

    def backward(self, loss: torch.Tensor, **_: Any) -> None:
        """Run the backward pass."""
        self.engine.backward(loss)
        self._inner_count += 1

    def step(self, **_: Any) -> None:
        """Clip and update, if it is due."""
        # The gloo of recent torch gathers into views, which a graph would forbid.
        with torch.no_grad():
            self.engine.step()
        if (norm := self.engine.get_global_grad_norm()) is not None:
            self.message_hub.update_scalar('train/grad_norm', float(norm))

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The engine itself knows when gradients are exchanged."""
        yield

    def refresh_parameters(self) -> None:
        """Take over the model's weights after they were drawn or loaded."""
        self.engine.optimizer.refresh_fp32_params()


def start_engine(model: nn.Module, wrapper: OptimWrapper) -> tuple[nn.Module, OptimWrapper]:
    """Hand a model and its optimiser to DeepSpeed.

    Returns:
        MMEngine's model wrapper around the engine, and the optimiser wrapper that drives it.
    """
    import deepspeed

    # torch.distributed runs already; Slurm and MPI have no such variable.
    os.environ.setdefault('LOCAL_RANK', '0')
    clip = wrapper.clip_grad_kwargs or {}
    settings = {
        'zero_optimization': {'stage': 1},
        'gradient_clipping': clip.get('max_norm', 0.0),
        'gradient_accumulation_steps': accumulation(wrapper),
        # For messages only: the data loader is MMEngine's.
        'train_micro_batch_size_per_gpu': 1,
        'steps_per_print': 10**12,
    }
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=wrapper.optimizer, config=settings, dist_init_required=False
    )
    wrapped = MODEL_WRAPPERS.build({'type': 'MMDeepSpeedEngineWrapper', 'model': engine})
    return wrapped, DeepSpeedOptimWrapper(engine, accumulate=accumulation(wrapper))
