"""Compare the settings of a training that is resumed with those of its checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from swinv2_mm.config.entries import read_entry
from swinv2_mm.config.text import parse_config_text
from swinv2_mm.errors import UserError

# What makes a training what it is; the rest is of the run: folders, logs, workers.
_ROOTS = (
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'randomness',
    'auto_scale_lr',
    'accumulate',
    'precision',
    'sync_bn',
    'custom_hooks',
    'hooks_off',
    'train_dataloader',
    'model',
)
_OF_THE_RUN = {
    'num_workers',
    'persistent_workers',
    'prefetch_factor',
    'pin_memory',
    'timeout',
    'init_cfg',
    'val_interval',
    'data_root',
}
# What the state in a checkpoint brings with it: the start of a key, and the name that
# ``resume_with`` has for it. The first that fits.
_OF_THE_STATE = {
    'optim_wrapper.optimizer.lr': 'lr',
    'optim_wrapper.paramwise_cfg': 'lr',
    'auto_scale_lr': 'lr',
    'optim_wrapper.optimizer.weight_decay': 'weight_decay',
    'optim_wrapper.optimizer': 'optimizer',
    'param_scheduler': 'schedule',
    'randomness.seed': 'seed',
}
_NOT_SET = 'not set'
_MOST_LINES = 20
_LONGEST = 80


@dataclass(frozen=True)
class Difference:
    """A setting that differs.

    Attributes:
        key: Such as ``optim_wrapper.optimizer.lr``.
        saved: What it was for the checkpoint, as text.
        configured: What it is in the config, as text.
        name: What ``resume_with`` calls it; ``None`` if it is not part of a checkpoint's state.
    """

    key: str
    saved: str
    configured: str
    name: str | None


def saved_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the training that saved a checkpoint, as far as it can be read."""
    meta = checkpoint.get('meta')
    return parse_config_text(meta.get('cfg')) if isinstance(meta, Mapping) else {}


def compare_settings(saved: Mapping[str, Any], configured: Mapping[str, Any]) -> list[Difference]:
    """List the settings of a training that differ, those of the checkpoint's state first.

    Args:
        saved: From ``saved_settings``; nothing is compared with an empty one.
        configured: The config that is resumed with, read in the same way.
    """
    if not saved:
        return []
    one, other = (dict(_leaves(settings)) for settings in (saved, configured))
    found = [
        Difference(key, _shown(one, key), _shown(other, key), _name_of(key))
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]
    return sorted(found, key=lambda difference: difference.name is None)


def explain_differences(found: Sequence[Difference], *, taken: Sequence[str]) -> list[str]:
    """Write a line for each setting that differs: both values, and which one holds.

    Args:
        found: From ``compare_settings``.
        taken: Names of ``resume_with``.
    """
    lines = []
    for difference in found:
        name = difference.name
        if name is None:
            which = "the config's holds"
        elif name in taken:
            which = f"the config's holds (resume_with {name})"
        else:
            which = f"the checkpoint's holds; --resume-with {name} takes the config's"
        lines.append(
            f'resumed with another setting: {difference.key} was {difference.saved} and is '
            f'{difference.configured} in the config: {which}'
        )
    if len(lines) > _MOST_LINES:
        num_more = len(lines) - _MOST_LINES
        lines = [*lines[:_MOST_LINES], f'... and {num_more} more settings: the config holds']
    return lines


def check_same_optimizer(saved: Mapping[str, Any], configured: Mapping[str, Any]) -> None:
    """Refuse the state of another class of optimizer.

    Raises:
        UserError: If the classes differ.
    """
    kinds = []
    for settings in (saved, configured):
        optimizer = (settings.get('optim_wrapper') or {}).get('optimizer') or {}
        kinds.append(optimizer.get('optimizer_type', optimizer.get('type')))
    if None not in kinds and kinds[0] != kinds[1]:
        raise UserError(
            f'the checkpoint has the state of {kinds[0]}, and optim_wrapper.optimizer.type is '
            f'{kinds[1]}: resume with {kinds[0]}, or start anew from the weights with load_from'
        )


def group_settings(wrapper: OptimWrapper) -> list[dict[str, Any]]:
    """Return what the groups of an optimizer have beside their parameters."""
    if isinstance(wrapper, OptimWrapperDict):
        return []
    return [{k: v for k, v in group.items() if k != 'params'} for group in wrapper.param_groups]


def take_settings(wrapper: OptimWrapper, wanted: Sequence[Mapping[str, Any]], names: Any) -> None:
    """Put settings of a config in the place of those that a checkpoint brought.

    Args:
        wrapper: With the state of the checkpoint.
        wanted: From ``group_settings``, before it was loaded.
        names: Of ``resume_with``; the rates follow from ``replay_schedule``.
    """
    for group, new in zip(wrapper.param_groups, wanted, strict=True):
        if 'lr' in names:
            group['initial_lr'] = new.get('initial_lr', new['lr'])
        if 'weight_decay' in names and 'weight_decay' in new:
            group['weight_decay'] = new['weight_decay']
        if 'optimizer' in names:
            others = {k: v for k, v in new.items() if k not in ('lr', 'weight_decay')}
            group.update({k: v for k, v in others.items() if not k.startswith('initial_')})


def reset_rates(wrapper: OptimWrapper) -> None:
    """Set the rates to those that schedules start from."""
    for group in wrapper.param_groups:
        group['lr'] = group.get('initial_lr', group['lr'])


def replay_schedule(schedulers: Sequence[Any], *, num_iters: int, epoch_length: int | None) -> None:
    """Bring schedules that have just been built to where a training is.

    Args:
        schedulers: Of one optimizer.
        num_iters: How many iterations have been trained.
        epoch_length: Iterations of an epoch; ``None`` if a training counts iterations only.

    Raises:
        UserError: If one depends on the scores of validations.
    """
    if any(isinstance(one, ReduceOnPlateauParamScheduler) for one in schedulers):
        raise UserError(
            'resume_with: ReduceOnPlateau depends on scores of the past, so that neither lr nor '
            'schedule can be taken from the config; leave them out, or start with load_from'
        )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that the optimizer has not stepped
        for iteration in range(1, num_iters + 1):
            due = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
            if epoch_length is not None and iteration % epoch_length == 0:
                due += [scheduler for scheduler in schedulers if scheduler.by_epoch]
            for scheduler in due:
                scheduler.step()


class ResumedSettings:
    """What a training that is resumed has from its checkpoint, and what from its config.

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
        self.schedule = runner.cfg.get('param_scheduler')
        if 'seed' in self.taken:
            checkpoint['meta']['seed'] = runner.seed
        is_other = any(difference.name == 'schedule' for difference in found)
        if is_other and 'schedule' not in self.taken:
            # Its state is that of other objects, perhaps of another number of them.
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


def _leaves(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """List the settings below a node, each by its dotted key."""
    if key == 'custom_hooks' and isinstance(node, (list, tuple)):
        # By name: their order says little.
        for hook in node:
            if isinstance(hook, Mapping):
                yield from _leaves(dict(hook), f'{key}.{hook.get("type")}')
    elif isinstance(node, Mapping):
        for name, value in node.items():
            if not key and name not in _ROOTS:
                continue
            if name not in _OF_THE_RUN:
                yield from _leaves(value, f'{key}.{name}' if key else str(name))
    elif isinstance(node, (list, tuple)) and any(isinstance(part, Mapping) for part in node):
        for number, part in enumerate(node):
            yield from _leaves(part, f'{key}.{number}')
    elif node is not None:
        # A config may say tuple where its text says list.
        yield key, list(node) if isinstance(node, tuple) else node


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    if key not in leaves:
        return _NOT_SET
    text = repr(leaves[key])
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'


def _name_of(key: str) -> str | None:
    for start, name in _OF_THE_STATE.items():
        if key == start or key.startswith(f'{start}.'):
            return name
    return None
