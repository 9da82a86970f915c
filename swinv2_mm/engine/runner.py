"""Extend MMEngine's Runner: safe strict loading, atomic and sharded saving, exact resume."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, LogProcessor, Runner
from torch import nn
from torch.utils.data import DataLoader

from swinv2_mm.checkpoint.load_report import shortened
from swinv2_mm.checkpoint.loading import find_backbones
from swinv2_mm.checkpoint.reading import pointed_at
from swinv2_mm.checkpoint.sharded import is_sharded
from swinv2_mm.config.entries import read_entry
from swinv2_mm.core.unwrapping import unwrapped
from swinv2_mm.errors import UserError
from swinv2_mm.mmengine_private import accumulation, is_training

from .console import environment_summary, tidy
from .filling import fill_model
from .log_lines import ShortLogProcessor
from .optimizer_warnings import warning_of_batch, warning_of_decay
from .parallel import ddp_on_cpu, with_sync_bn
from .progress_bar import progress_bar
from .resumed_settings import ResumedSettings
from .saving import training_checkpoint, write_checkpoint
from .seeding import reseed_sampler, seed_samples
from .sharded_training import ZeroOptimizer, read_shards, sharding_of
from .standard_hooks import plan_hooks
from .training_state import check_resumable, newest_readable, open_checkpoint
from .workers import shield_workers, without_idle_settings

# Numbers the runs of this process.
_RUN_NUMBERS = itertools.count(1)


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """MMEngine's Runner for weights of any layout and for sharded training state.

    MMEngine falls back to running the code in a pickle, executes the config text of a
    checkpoint that is resumed, and goes on when weights do not fit. This one refuses.

    ``load_from`` may also be weights of any layout that ``swinv2_mm.checkpoint`` reads, or the
    name of a released model; ``fresh_parameters`` and ``head_class_map`` of the config say what
    it need not fit (``fill_model``).

    Checkpoints of all kinds of ``parallel`` are alike: each resumes those of another, on any
    number of processes.
    """

    resumed: ResumedSettings | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build it as MMEngine does, which keeps a run's logger, and more, under the run's name.

        The name ends in the second of its start: without a number, a run that follows in the same
        second would write into the log file of the first.
        """
        if (number := next(_RUN_NUMBERS)) > 1:
            filename = getattr(kwargs.get('cfg'), 'filename', None) or 'run'
            name = kwargs.get('experiment_name') or Path(filename).stem
            kwargs['experiment_name'] = f'{name}_{number}'
        super().__init__(*args, **kwargs)

    @cached_property
    def sharding(self) -> ZeroOptimizer | None:
        """What shards the state of this training; ``None`` for DDP and for a single process."""
        return sharding_of(self.cfg) if self.distributed else None

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build MMEngine's logger; routine messages go to the log file only."""
        logger = super().build_logger(*args, **kwargs)
        tidy(logger)
        return logger

    def _log_env(self, env_cfg: dict) -> None:
        super()._log_env(env_cfg)
        summary = environment_summary(
            self.cfg, seed=self.seed, work_dir=self.work_dir, log_file=self.logger.log_file
        )
        self.logger.info(summary)

    def build_log_processor(self, log_processor: LogProcessor | dict) -> LogProcessor:
        """Build the processor of log lines; MMEngine's is replaced by one with short lines."""
        if isinstance(log_processor, dict) and log_processor.get('type') in (None, 'LogProcessor'):
            log_processor = {**log_processor, 'type': ShortLogProcessor.__name__}
        return super().build_log_processor(log_processor)

    def dump_config(self) -> None:
        """Do nothing: the config was changed for the run; see ``save_config``."""

    def register_hooks(
        self, default_hooks: dict | None = None, custom_hooks: list | None = None
    ) -> None:
        """Register the hooks of the config, and the standard ones that it does not name."""
        plan = plan_hooks(self.cfg, default_hooks=default_hooks, custom_hooks=custom_hooks)
        super().register_hooks(plan.default, plan.custom)
        self.hook_summary = plan.summary

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model."""
        build = super().build_model
        if self.sharding is None:
            return build(model)
        settings = copy.deepcopy(model)
        return self.sharding.build_model(lambda: build(copy.deepcopy(settings)))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Distribute a model over the processes, by DDP or sharded."""
        if not self.distributed:
            return super().wrap_model(model_wrapper_cfg, model)
        model = with_sync_bn(model, self.cfg, logger=self.logger)
        if not torch.cuda.is_available():
            model_wrapper_cfg = {**ddp_on_cpu(self.cfg), **(model_wrapper_cfg or {})}
        sharded = self.sharding.wrap(model) if self.sharding else None
        return super().wrap_model(model_wrapper_cfg, model) if sharded is None else sharded

    def _init_model_weights(self) -> None:
        init = super()._init_model_weights
        if self.sharding is None:
            init()
        else:
            self.sharding.init_weights(self.model, init=init, seed=self.seed)

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer, and log if it decays what SwinV2's recipe exempts."""
        built = super().build_optim_wrapper(optim_wrapper)
        if not isinstance(optim_wrapper, OptimWrapper) and isinstance(built, OptimWrapper):
            if warning := warning_of_decay(self.bare_model, built.optimizer):
                self.logger.warning(warning)
        return built

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate with the images per update, those accumulated included."""
        counts = accumulation(optim_wrapper)
        warning = warning_of_batch(
            auto_scale_lr or {}, self._train_dataloader, num_loaders=self.world_size * counts
        )
        if warning:
            self.logger.warning(warning)
        if auto_scale_lr and auto_scale_lr.get('enable') and counts > 1:
            self.logger.info(f'{counts} iterations make an update: the global batch is that larger')
            base = auto_scale_lr['base_batch_size'] / counts
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': base}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def train(self) -> nn.Module:
        """Train.

        Raises:
            UserError: If the state is to be sharded, and there is one process only.
        """
        kind = read_entry(self.cfg, 'parallel')['type']
        if kind != 'ddp' and not self.distributed:
            raise UserError(
                f'parallel={kind} spreads a training over processes: start it by '
                'tools/dist_train.sh or tools/slurm_train.sh, or leave parallel out'
            )
        self.logger.info(self.hook_summary)
        with progress_bar(self):
            return super().train()

    def test(self) -> dict[str, float]:
        """Test."""
        with progress_bar(self):
            return super().test()

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """Build an evaluator; processes exchange their results in the work dir."""
        evaluator = super().build_evaluator(evaluator)
        for number, metric in enumerate(evaluator.metrics):
            if metric.collect_device == 'cpu' and metric.collect_dir is None:
                # MMEngine's default is a folder in the current one.
                metric.collect_dir = str(Path(self.work_dir, f'.results-{number}'))
        return evaluator

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict:
        """Load weights into the model, strictly.

        Returns:
            The checkpoint, without its config text.

        Raises:
            UserError: If the file is missing, broken, holds code, or does not fit the model.
        """
        filename = str(pointed_at(Path(filename))) if '://' not in filename else filename
        opened = open_checkpoint(filename, map_location=map_location)
        is_resumed = self._resume and is_training(self)
        checkpoint, model = opened.content, self.bare_model
        optimizer = None
        if is_resumed:
            check_resumable(checkpoint, filename=filename)
            optimizer = self.optim_wrapper.optimizer
            self.resumed = ResumedSettings(self, checkpoint)
        if is_sharded(Path(filename)):
            read_shards(checkpoint, folder=Path(filename), model=model, optimizer=optimizer)
        elif is_resumed and self.sharding:
            self.sharding.cut_optimizer_state(checkpoint['optimizer'], optimizer)
        report = fill_model(
            model,
            opened,
            is_start=is_training(self) and not self._resume,
            is_resumed=is_resumed,
            fresh=read_entry(self.cfg, 'fresh_parameters'),
            class_map=read_entry(self.cfg, 'head_class_map'),
            revise_keys=revise_keys,
            prepare=lambda content: self.call_hook('after_load_checkpoint', checkpoint=content),
        )
        if report.layout != 'own':
            # The average was copied from the model before, and MMEngine fills it from own names.
            for hook in self.hooks:
                if isinstance(hook, EMAHook):
                    hook.ema_model.module.load_state_dict(model.state_dict())
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}: {report}')
        if report.missing:
            names = shortened(list(report.missing))
            self.logger.info(f'{len(report.missing)} tensors keep their initial values: {names}')
        return checkpoint

    def load_or_resume(self) -> None:
        """Load or resume as the config says; ``resume`` alone takes the newest readable file."""
        if self._resume and self._load_from is None and not self._has_loaded:
            # Processes that each look for themselves could find different ones.
            found = [self._newest_readable() if is_main_process() else None]
            broadcast_object_list(found)
            if found[0] is None:
                self.logger.info(f'No readable checkpoint in {self.work_dir}: training starts anew')
                self._resume, self._load_from = False, read_entry(self.cfg, 'start_from')
            else:
                self._load_from = found[0]
        with self.whole_values():
            super().load_or_resume()
        if is_training(self):
            for backbone in find_backbones(self.model):
                is_compiled = bool(self.cfg.get('compile'))
                self.logger.info(backbone.describe_attention(is_compiled=is_compiled))

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume as MMEngine does, and report what holds: the checkpoint's setting or the config's.

        The seed of the checkpoint goes to the sampler too; what ``resume_with`` names comes from
        the config.

        Raises:
            UserError: If the state does not fit the optimizer, or a schedule cannot be replayed.
        """
        seed = self.seed
        try:
            super().resume(filename, *args, **kwargs)
        except ValueError as error:
            if 'parameter group' not in str(error):
                raise
            raise UserError(
                f'{filename}: {error}; resume with the optim_wrapper and the frozen parameters '
                'that it was trained with, or start from its weights with load_from'
            ) from error
        if self.seed != seed:
            reseed_sampler(self.train_dataloader, old=seed, new=self.seed)
        if self.resumed is not None:
            self.resumed.finish(self)

    def whole_values(self) -> Any:
        """Return a context in which whole tensors can be copied to the model, sharded or not."""
        return self.sharding.whole_values() if self.sharding else nullcontext()

    @property
    def bare_model(self) -> nn.Module:
        """The model without MMEngine's wrapper."""
        return unwrapped(self.model)

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> DataLoader:
        """Build MMEngine's loader, with samples that are drawn alike in whatever process."""
        if isinstance(dataloader, dict):
            dataloader = without_idle_settings(dataloader)
        loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        seed_samples(loader)
        shield_workers(loader)
        return loader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build a loop that can be taken up in the middle of an epoch."""
        if isinstance(loop, dict) and loop.get('type') == 'EpochBasedTrainLoop':
            loop = {**loop, 'type': 'ResumableEpochLoop'}
        return super().build_train_loop(loop)

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save in MMEngine's format, atomically; all processes call it.

        Raises:
            UserError: If it cannot be written; what was there before is untouched.
        """
        if self.sharding is None and not is_main_process():
            return
        checkpoint = training_checkpoint(
            self,
            meta=meta,
            by_epoch=by_epoch,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
        )
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        write_checkpoint(
            checkpoint, out_dir, name=filename, sharding=self.sharding, backend_args=backend_args
        )

    def _newest_readable(self) -> str | None:
        folders = {self.work_dir}
        for hook in self.hooks:
            if getattr(hook, 'out_dir', None) is not None and isinstance(hook, CheckpointHook):
                folders.add(str(Path(hook.out_dir, Path(self.work_dir).name)))
        path = newest_readable(folders, logger=self.logger)
        return None if path is None else str(path)
