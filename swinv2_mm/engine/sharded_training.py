"""Shard the training state: ZeRO stage 1, or FSDP, behind one interface for the Runner."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import broadcast
from torch import Tensor, nn

from swinv2_mm.checkpoint import CheckpointError
from swinv2_mm.checkpoint.sharded import load_sharded, save_sharded
from swinv2_mm.config.entries import read_entry

from . import sharding
from .parallel import process_timeout


class ZeroOptimizer:
    """ZeRO stage 1 (paper section 3.5): each process holds a shard of the optimizer's state.

    The model is whole on each process, in MMEngine's DDP, and ``ZeroRedundancyOptimizer`` gathers
    its own state: all that a Runner has to know is that every process takes part in a save.

    Attributes:
        saves_folder: Whether each process writes its own part of a checkpoint.
    """

    saves_folder = False

    def __init__(self, cfg: Config) -> None:
        self._settings, self._timeout = cfg.parallel, process_timeout(cfg)

    def build_model(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Build the model that is then wrapped."""
        return build()

    def wrap(self, model: nn.Module) -> nn.Module | None:
        """Shard a model; ``None`` leaves it to MMEngine's DDP."""
        return None

    def init_weights(self, model: nn.Module, *, init: Callable[[], object], seed: int) -> None:
        """Initialize the weights; ``init`` does it as MMEngine does."""
        init()

    def whole_values(self) -> AbstractContextManager:
        """Let whole tensors be copied into the model."""
        return nullcontext()

    def cut_optimizer_state(self, state: dict, optimizer: torch.optim.Optimizer) -> None:
        """Keep this process's shards of the whole state in a checkpoint."""

    def take_out(self, checkpoint: dict, *, folder: Path) -> None:
        """Make a checkpoint whole on the main process, or write its tensors to ``folder``."""


class FullySharded(ZeroOptimizer):
    """FSDP2: parameters, gradients and the optimizer's state are sharded (``sharding.shard``)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self._is_drawn_in_parts = self._settings['init'] == 'sharded'
        self.saves_folder = self._settings['checkpoint'] == 'sharded'

    def build_model(self, build: Callable[[], nn.Module]) -> nn.Module:
        """Build a model, with ``init='sharded'`` without memory for its parameters."""
        self._build = build
        with sharding.meta_parameters() if self._is_drawn_in_parts else nullcontext():
            return build()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Shard a model over the processes."""
        return sharding.shard(
            model,
            build=self._build,
            timeout=self._timeout,
            num_shards=self._settings['shards'],
        )

    def init_weights(self, model: nn.Module, *, init: Callable[[], object], seed: int) -> None:
        """Initialize the weights to those of a model that is not sharded."""
        with self.whole_values(), torch.no_grad():
            if self._is_drawn_in_parts:
                torch.manual_seed(seed)
                sharding.draw_constructed(model)
            if hasattr(model, 'init_weights'):
                model.init_weights()
        if self._is_drawn_in_parts:
            sharding.check_drawn(model)
        for buffer in model.buffers():
            broadcast(buffer)

    def whole_values(self) -> AbstractContextManager:
        """Let whole tensors be copied to shards."""
        return sharding.whole_values()

    def cut_optimizer_state(self, state: dict, optimizer: torch.optim.Optimizer) -> None:
        """Keep this process's shards of the whole state in a checkpoint."""
        sharding.cut_optimizer_state(state, optimizer)

    def take_out(self, checkpoint: dict, *, folder: Path) -> None:
        """Gather what is sharded on the main process, or write it as it is to ``folder``."""
        if self.saves_folder:
            save_sharded(folder, _popped_tensors(checkpoint))
            return
        for key in ('state_dict', 'ema_state_dict', 'optimizer', 'gradients'):
            if key in checkpoint:
                checkpoint[key] = sharding.gathered(checkpoint[key])


_KINDS = {'zero1': ZeroOptimizer, 'fsdp': FullySharded}


def sharding_of(cfg: Config) -> ZeroOptimizer | None:
    """Return how a config shards a training of several processes; ``None`` for DDP."""
    kind = _KINDS.get(read_entry(cfg, 'parallel')['type'])
    return kind(cfg) if kind else None


def read_shards(
    checkpoint: dict,
    *,
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Read the tensors of a sharded checkpoint, each cut as the model's; all processes call it.

    Args:
        checkpoint: What lies beside the tensors; they are added.
        folder: Folder that it was read from.
        model: Unwrapped, sharded or not.
        optimizer: Optimizer of a resumed training; ``None`` if only weights are needed.

    Raises:
        CheckpointError: If the folder is damaged or incomplete.
    """
    state_dict = model.state_dict()
    like = {f'state_dict/{name}': value for name, value in state_dict.items()}
    wanted = ['state_dict/']
    if optimizer is not None:
        wanted += ['ema_state_dict/', 'gradients/', 'optimizer/']
        like |= {f'ema_state_dict/module.{name}': value for name, value in state_dict.items()}
        like |= {f'gradients/{name}': value for name, value in state_dict.items()}
        parameters = sharding.parameters_of(optimizer)
        like |= {f'optimizer/{index}/': value for index, value in enumerate(parameters)}
    checkpoint['state_dict'] = {}
    for path, value in load_sharded(folder, like=like, starts=wanted).items():
        key, _, name = path.partition('/')
        if key == 'optimizer':
            index, name = name.split('/')
            states = checkpoint['optimizer'].setdefault('state', {})
            states.setdefault(int(index), {})[name] = value
        else:
            checkpoint.setdefault(key, {})[name] = value
    if 'gradients' in checkpoint:
        checkpoint['gradients'] = [checkpoint['gradients']]
    if optimizer is not None and not checkpoint['optimizer'].get('state'):
        raise CheckpointError(
            f'{folder} holds no state of the optimizer: start from its weights with load_from'
        )


def _popped_tensors(checkpoint: dict) -> dict[str, Tensor]:
    """Take the tensors out of a checkpoint, under the path of each."""
    tensors = {}
    for key in ('state_dict', 'ema_state_dict'):
        for name, value in checkpoint.pop(key, {}).items():
            tensors[f'{key}/{name}'] = value
    # As shards, of what was accumulated: one list for all processes.
    for gradients in checkpoint.pop('gradients', []):
        tensors |= {f'gradients/{name}': value for name, value in gradients.items()}
    for index, state in checkpoint.get('optimizer', {}).pop('state', {}).items():
        for name, value in state.items():
            tensors[f'optimizer/{index}/{name}'] = torch.as_tensor(value)
    return tensors
