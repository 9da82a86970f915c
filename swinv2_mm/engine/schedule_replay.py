"""Take learning rates, weight decay and schedules of a resumed training from its config."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler

from swinv2_mm.errors import UserError


def group_settings(wrapper: OptimWrapper) -> list[dict[str, Any]]:
    """Return what the groups of an optimizer have beside their parameters."""
    if isinstance(wrapper, OptimWrapperDict):
        return []
    return [{k: v for k, v in group.items() if k != 'params'} for group in wrapper.param_groups]


def take_settings(wrapper: OptimWrapper, wanted: Sequence[Mapping[str, Any]], names: Any) -> None:
    """Put settings of a config in the place of those that a checkpoint brought.

    Args:
        wrapper: The optimizer wrapper, with the state of the checkpoint.
        wanted: What ``group_settings`` returned before the checkpoint was loaded.
        names: Names in ``resume_with``; the rates follow from ``replay_schedule``.
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
        schedulers: Schedulers of one optimizer.
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
