"""Validate the numbers of a config before anything is built from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from swinv2_mm.errors import UserError

from .datasets import innermost_datasets

_LENGTHS = ('max_iters', 'max_epochs', 'val_interval')
_RATES = (('optimizer', 'lr'), ('optimizer', 'weight_decay'), ('clip_grad', 'max_norm'))


def check_values(cfg: Mapping[str, Any], loaders: Iterable[str]) -> None:
    """Validate the numbers that torch and MMEngine reject late or with unclear messages.

    Args:
        cfg: A whole config.
        loaders: Such as ``train_dataloader``; the settings of a training are validated with that
            one. Those that the config lacks are skipped.

    Raises:
        UserError: If a number is missing, of the wrong kind, or out of range.
    """
    for loader in loaders:
        settings = _dict(cfg, loader)
        _check_integer(settings, 'batch_size', where=loader, least=1)
        _check_integer(settings, 'num_workers', where=loader, least=0)
        sampler = str(_dict(settings, 'sampler').get('type'))
        if sampler.endswith('InfiniteSampler') and not _is_by_iteration(cfg, loader):
            raise UserError(
                f'{loader}.sampler is {sampler}, with which an epoch never ends: set '
                f'{loader}.sampler.type=DefaultSampler'
            )
        for dataset in innermost_datasets(settings.get('dataset')):
            if 'pipeline' in dataset and not dataset['pipeline']:
                raise UserError(f'{loader}.dataset.pipeline is empty: it loads and packs images')
        if loader == 'train_dataloader':
            _check_training(cfg)


def _is_by_iteration(cfg: Mapping[str, Any], loader: str) -> bool:
    """Return whether a loop takes batches one by one, and not what a loader holds."""
    loop = _dict(cfg, 'train_cfg')
    kind = 'EpochBasedTrainLoop' if loop.get('by_epoch') else str(loop.get('type'))
    return loader == 'train_dataloader' and 'Epoch' not in kind


def _check_training(cfg: Mapping[str, Any]) -> None:
    for name in _LENGTHS:
        _check_integer(_dict(cfg, 'train_cfg'), name, where='train_cfg', least=1)
    wrapper = _dict(cfg, 'optim_wrapper')
    _check_integer(wrapper, 'accumulative_counts', where='optim_wrapper', least=1)
    for where, name in _RATES:
        settings = _dict(wrapper, where)
        if name in settings and not _is_rate(settings[name]):
            raise UserError(
                f'optim_wrapper.{where}.{name} must be a number that is not negative, '
                f'got {settings[name]!r}'
            )
    if _dict(wrapper, 'clip_grad').get('max_norm') == 0:
        raise UserError(
            'optim_wrapper.clip_grad.max_norm=0 makes every gradient 0, so that nothing is '
            'learnt: set optim_wrapper.clip_grad=None to clip none'
        )
    for name, hook in _dict(cfg, 'default_hooks').items():
        if isinstance(hook, Mapping):
            _check_integer(hook, 'interval', where=f'default_hooks.{name}')
    if _dict(cfg, 'randomness').get('seed') is not None:
        _check_integer(_dict(cfg, 'randomness'), 'seed', where='randomness', least=0)


def _is_rate(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def _dict(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def _check_integer(
    settings: Mapping[str, Any], name: str, *, where: str, least: int | None = None
) -> None:
    value = settings.get(name)
    if name not in settings or (type(value) is int and (least is None or value >= least)):
        return
    wanted = 'a whole number' if least is None else f'a whole number from {least} on'
    raise UserError(f'{where}.{name} must be {wanted}, got {value!r}')
