"""Decide what a resumed training takes from its checkpoint, and what from its config."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from swinv2_mm.config.entries import read_entry
from swinv2_mm.config.text import parse_config_text
from swinv2_mm.core.cpu_kernels import resume_cpu_rule

from .schedule_replay import group_settings, replay_schedule, reset_rates, take_settings
from .setting_differences import (
    check_same_optimizer,
    compare_settings,
    explain_differences,
    saved_settings,
)


class ResumedSettings:
    """The settings of a resumed training: those of its checkpoint, and those of its config.

    Made when the checkpoint has been read, before anything of it is used; ``finish`` follows when
    MMEngine has restored the state.
    """

    def __init__(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the settings, and prepare what MMEngine restores.

        Raises:
            UserError: If the checkpoint has the state of another optimizer.
        """
        self.taken = read_entry(runner.cfg, 'resume_with')
        saved = saved_settings(checkpoint)
        configured = parse_config_text(runner.cfg.pretty_text)
        check_same_optimizer(saved, configured)
        self.wanted = group_settings(runner.optim_wrapper)
        found = compare_settings(saved, configured)
        for line in explain_differences(found, taken=self.taken):
            runner.logger.warning(line)
        if not saved:
            runner.logger.warning(
                'the checkpoint tells no config: learning rate, schedule, weight decay and seed '
                "are the checkpoint's, and nothing is compared"
            )
        is_on_cpu = next(runner.model.parameters()).device.type == 'cpu'
        kernels = checkpoint['meta'].get('cpu_kernels')
        if is_on_cpu and kernels and (line := resume_cpu_rule(kernels)):
            runner.logger.warning(line)
        self.schedule = runner.cfg.get('param_scheduler')
        if 'seed' in self.taken:
            checkpoint['meta']['seed'] = runner.seed
        is_other = any(difference.name == 'schedule' for difference in found)
        if is_other and 'schedule' not in self.taken:
            # Its state belongs to other schedulers, perhaps to another number of them.
            self.schedule = saved.get('param_scheduler')
            runner.param_schedulers = self._schedulers(runner)
        has_average = any(isinstance(hook, EMAHook) for hook in runner.hooks)
        if 'ema_state_dict' in checkpoint and not has_average:
            use_trained_weights(checkpoint)
            runner.logger.warning(
                'the checkpoint has an average of the weights (EMAHook), the config has none: the '
                'weights that were trained go on, and their average ends here'
            )

    def finish(self, runner: Runner) -> None:
        """Take what ``resume_with`` names, and log the rates that hold.

        Raises:
            UserError: If a schedule cannot be replayed.
        """
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict):
            return
        take_settings(wrapper, self.wanted, self.taken)
        if {'lr', 'schedule'} & set(self.taken):
            reset_rates(wrapper)
            runner.param_schedulers = self._schedulers(runner)
            length = len(runner.train_dataloader)
            is_by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            first_batch = getattr(runner.train_loop, 'first_batch', 0)
            replay_schedule(
                runner.param_schedulers or (),
                num_iters=runner.epoch * length + first_batch if is_by_epoch else runner.iter,
                epoch_length=length if is_by_epoch else None,
            )
        groups = wrapper.optimizer.param_groups
        rates = [group['lr'] for group in groups]
        decay = max(group.get('weight_decay', 0.0) for group in groups)
        runner.logger.info(
            f'Resumed at iteration {runner.iter}: learning rates {min(rates):.3g} to '
            f'{max(rates):.3g}, weight decay {decay:.3g}, seed {runner.seed}'
        )
        loop = runner.train_loop
        if runner.iter >= loop.max_iters or runner.epoch >= loop.max_epochs:
            runner.logger.warning(
                'the checkpoint is as long as train_cfg says (max_iters or max_epochs): nothing is '
                'left to train'
            )

    def _schedulers(self, runner: Runner) -> list[Any] | None:
        return self.schedule and runner.build_param_scheduler(self.schedule)


def use_trained_weights(checkpoint: dict[str, Any]) -> None:
    """Put the weights that were trained in the place of their average, as EMAHook does."""
    weights = checkpoint['state_dict']
    for name, value in checkpoint['ema_state_dict'].items():
        if name.startswith('module.') and name[7:] in weights:
            weights[name[7:]] = value
