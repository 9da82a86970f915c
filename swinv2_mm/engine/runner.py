"""Build what a run of MMEngine's Runner consists of: model, loaders, hooks, console, log files."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, LogProcessor, Runner
from torch import nn
from torch.utils.data import DataLoader

from swinv2_mm.config.entries import read_entry
from swinv2_mm.errors import UserError
from swinv2_mm.mmengine_private import accumulation

from .checkpoint_runner import CheckpointRunner
from .console import environment_summary, tidy
from .log_lines import ShortLogProcessor
from .optimizer_warnings import warning_of_batch, warning_of_decay
from .parallel import ddp_on_cpu, with_sync_bn
from .progress_bar import progress_bar
from .seeding import seed_samples
from .standard_hooks import plan_hooks
from .workers import shield_workers, without_idle_settings

# Numbers the runs of this process.
_RUN_NUMBERS = itertools.count(1)


@RUNNERS.register_module()
class CheckedRunner(CheckpointRunner):
    """The Runner of this project: its hooks, console lines, loaders and distributed models."""

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
