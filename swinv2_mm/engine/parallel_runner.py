"""MMEngine's Runner for models and optimisers that are spread over processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast, get_rank, is_main_process
from mmengine.model import convert_sync_batchnorm, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from swinv2_mm.checkpoint import CheckpointError
from swinv2_mm.checkpoint.sharded import REST, is_sharded, load_sharded, save_sharded
from swinv2_mm.errors import UserError

from . import sharding
from .deepspeed_engine import DeepSpeedOptimWrapper, start_engine
from .parallel import process_timeout


class _OthersAreDone(Exception):
    """Leaves MMEngine's saving, on the processes that write no file."""


class ParallelRunner(Runner):
    """Carries out ``parallel`` of a config, as ``apply_parallel`` left it there.

    ``ddp`` and ``zero1`` train as MMEngine does; with ``zero1`` all processes take part in a save,
    as the optimiser's state asks for. ``fsdp`` cuts the model, ``deepspeed`` hands it over.
    Whole checkpoints of all but DeepSpeed are alike: each kind resumes those of another, on
    any number of processes.
    """

    @property
    def parallel(self) -> dict:
        """The settings; those of DDP for a single process."""
        settings = self.cfg.get('parallel')
        return settings if settings and self.distributed else {'type': 'ddp'}

    @property
    def _is_fsdp(self) -> bool:
        return self.parallel['type'] == 'fsdp'

    @property
    def _draws_parts(self) -> bool:
        return self.parallel.get('init') == 'sharded'

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build a model, with ``init='sharded'`` without memory for its parameters."""
        if not self._is_fsdp:
            return super().build_model(model)
        if isinstance(model, dict):
            settings = copy.deepcopy(model)
            self._build_again = lambda: Runner.build_model(self, copy.deepcopy(settings))
        with sharding.meta_parameters() if self._draws_parts else nullcontext():
            return super().build_model(model)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Spread a model over the processes."""
        if not self.distributed:
            return super().wrap_model(model_wrapper_cfg, model)
        if not torch.cuda.is_available():
            if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
                self.logger.warning(
                    'SyncBN works on GPUs only: here each process takes its own statistics, so '
                    'that results depend on the number of processes'
                )
                model = revert_sync_batchnorm(model)
            # MMEngine's default asks for a GPU each.
            model_wrapper_cfg = {
                'type': 'MMDistributedDataParallel',
                'device_ids': None,
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}),
            }
        elif self.cfg.get('sync_bn'):
            model = convert_sync_batchnorm(model, self.cfg.sync_bn)
        if self._is_fsdp:
            return sharding.shard(
                model,
                build=self._build_again,
                timeout=process_timeout(self.cfg),
                num_shards=self.parallel['shards'],
            )
        if self.parallel['type'] == 'deepspeed':
            return model.to(get_device())
        return super().wrap_model(model_wrapper_cfg, model)

    def build_optim_wrapper(self, optim_wrapper: dict | OptimWrapper) -> OptimWrapper:
        """Build the optimiser; DeepSpeed takes the model over with it."""
        built = super().build_optim_wrapper(optim_wrapper)
        if self.parallel['type'] == 'deepspeed' and not isinstance(built, DeepSpeedOptimWrapper):
            self.model, built = start_engine(self.model, built)
        return built

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate with the images per update, those accumulated included."""
        counts = getattr(optim_wrapper, '_accumulative_counts', 1)
        if auto_scale_lr and auto_scale_lr.get('enable') and counts > 1:
            self.logger.info(f'{counts} iterations make an update: the global batch is that larger')
            base = auto_scale_lr['base_batch_size'] / counts
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': base}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def train(self) -> nn.Module:
        """Train.

        Raises:
            UserError: If there is one process only, and nothing to spread.
        """
        kind = (self.cfg.get('parallel') or {}).get('type', 'ddp')
        if kind != 'ddp' and not self.distributed:
            raise UserError(
                f'parallel={kind} spreads a training over processes: start it by '
                'tools/dist_train.sh or tools/slurm_train.sh, or leave parallel out'
            )
        return super().train()

    def _init_model_weights(self) -> None:
        if not self._is_fsdp:
            super()._init_model_weights()
            return
        with sharding.whole_values(), torch.no_grad():
            if self._draws_parts:
                torch.manual_seed(self.seed)
                sharding.draw_constructed(self.model)
            if hasattr(self.model, 'init_weights'):
                self.model.init_weights()
        if self._draws_parts:
            sharding.check_drawn(self.model)
        for buffer in self.model.buffers():
            broadcast(buffer)

    def load_or_resume(self) -> None:
        """Load or resume as the config says, into shards too."""
        with self.whole_values():
            super().load_or_resume()
        if isinstance(self.optim_wrapper, DeepSpeedOptimWrapper):
            self.optim_wrapper.refresh_parameters()

    @contextmanager
    def whole_values(self) -> Iterator[None]:
        """Let whole tensors be copied to shards."""
        with sharding.whole_values() if self._is_fsdp else nullcontext():
            yield

    def complete(self, checkpoint: dict, *, filename: str) -> None:
        """Give each process its part of a checkpoint; all processes must call it.

        Args:
            checkpoint: Whole, or, of a sharded one, what lies beside the tensors.
            filename: Where it was read.

        Raises:
            CheckpointError: If they are damaged, or another number of processes ran DeepSpeed.
        """
        folder = Path(filename)
        if not is_sharded(folder):
            if self._is_fsdp and self._resume and 'optimizer' in checkpoint:
                sharding.cut_optimizer_state(checkpoint['optimizer'], self.optim_wrapper.optimizer)
            return
        state_dict = self._bare_model().state_dict()
        like = {f'state_dict/{name}': value for name, value in state_dict.items()}
        wanted = ['state_dict/']
        own = '/'.join(['optimizer', *self._optimizer_place(), ''])
        if self._resume:
            wanted += ['ema_state_dict/', 'gradients/', own]
            like |= {f'ema_state_dict/module.{name}': value for name, value in state_dict.items()}
            like |= {f'gradients/{name}': value for name, value in state_dict.items()}
            if self._is_fsdp:
                parameters = sharding.parameters_of(self.optim_wrapper.optimizer)
                like |= {f'{own}{index}/': parameter for index, parameter in enumerate(parameters)}
        checkpoint['state_dict'] = {}
        for path, value in load_sharded(folder, like=like, starts=wanted).items():
            key, _, name = path.partition('/')
            if key != 'optimizer':
                checkpoint.setdefault(key, {})[name] = value
                continue
            index, name = path.removeprefix(own).split('/')
            checkpoint['optimizer'].setdefault('state', {}).setdefault(int(index), {})[name] = value
        if 'gradients' in checkpoint:
            checkpoint['gradients'] = [checkpoint['gradients']]
        if self._resume and not checkpoint['optimizer'].get('state'):
            raise CheckpointError(
                f'{folder} was saved with another kind of parallel, or by another number of '
                'processes of DeepSpeed, whose parts cannot be cut anew; start from its weights '
                'with load_from instead'
            )

    def _optimizer_place(self) -> list[str]:
        """Where in a sharded checkpoint the state of the optimiser is."""
        # DeepSpeed's is a few flat tensors of this process alone.
        is_own = self.parallel['type'] == 'deepspeed'
        return [f'{get_rank()} of {self.world_size}'] if is_own else []

    def _bare_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model

    def _saves_folder(self) -> bool:
        return self.parallel['type'] == 'deepspeed' or self.parallel.get('checkpoint') == 'sharded'

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a file, or the folder of a sharded checkpoint."""
        if self.parallel['type'] == 'ddp':
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        if self._saves_folder():
            out_dir, filename = str(Path(out_dir, filename)), REST
        self._out_dir = out_dir
        # Behind ``master_only``: each process has a part of what is saved.
        save: Callable = Runner.save_checkpoint.__wrapped__
        try:
            save(self, out_dir, filename, *args, **kwargs)
        except _OthersAreDone:
            pass

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks; what they leave of a checkpoint is then put together, or cut off."""
        super().call_hook(fn_name, **kwargs)
        if fn_name != 'before_save_checkpoint' or self.parallel['type'] == 'ddp':
            return
        checkpoint = kwargs['checkpoint']
        if self._saves_folder():
            save_sharded(Path(self._out_dir), self._taken_out(checkpoint))
        else:
            for key in ('state_dict', 'ema_state_dict', 'optimizer', 'gradients'):
                if key in checkpoint:
                    checkpoint[key] = sharding.gathered(checkpoint[key])
        if not is_main_process():
            raise _OthersAreDone

    def _taken_out(self, checkpoint: dict) -> dict[str, torch.Tensor]:
        """Take the tensors out of a checkpoint, under the path of each."""
        tensors = {}
        for key in ('state_dict', 'ema_state_dict'):
            for name, value in checkpoint.pop(key, {}).items():
                tensors[f'{key}/{name}'] = value
        # As shards, of what was accumulated: one list for all processes.
        for gradients in checkpoint.pop('gradients', []):
            tensors |= {f'gradients/{name}': value for name, value in gradients.items()}
        place = '/'.join(['optimizer', *self._optimizer_place()])
        for index, state in checkpoint.get('optimizer', {}).pop('state', {}).items():
            for name, value in state.items():
                tensors[f'{place}/{index}/{name}'] = torch.as_tensor(value)
        return tensors
