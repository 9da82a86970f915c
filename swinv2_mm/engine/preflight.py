"""Validate a training before its first step, where its parts are built but nothing has run."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from swinv2_mm.config.datasets import metrics_of, type_name
from swinv2_mm.core.unwrapping import unwrapped
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.models.class_count import num_classes_of

from .metric_names import OF_ONE_CLASS, metric_names

_SCHEDULE = 'param_scheduler'
# Prefixes of the names of classes that have an argument ``monitor``.
_MONITORING = ('EarlyStoppingHook', 'ReduceOnPlateau')


def check_training(runner: Runner, cfg: Config) -> None:
    """Validate the parts of a training against each other.

    Args:
        runner: Built, but not run.
        cfg: Its config.

    Raises:
        DataError: If the images do not make up one batch.
        UserError: If the channels of the model do not fit, a head has one class to choose from, or
            no evaluator gives the metric that a part of the training waits for, such as
            ``save_best``.
    """
    model = unwrapped(runner.model)
    if type(model).__name__.endswith('Classifier') and not getattr(model, 'with_head', True):
        raise UserError('model.head is missing: a classifier cannot be trained without one')
    channels = getattr(getattr(model, 'backbone', None), 'out_channels', None)
    if isinstance(channels, Sequence):
        check_channels(cfg.model, channels)
    check_outputs(model)
    _check_monitors(runner, cfg)
    check_metrics(runner, cfg, 'val')
    _check_batches(runner.train_loop.dataloader)


def check_metrics(runner: Runner, cfg: Config, loader: str) -> None:
    """Refuse metrics of something that the model does not predict.

    Args:
        runner: Built, but not run.
        cfg: Its config.
        loader: ``val`` or ``test``.

    Raises:
        UserError: If masks are measured, and the detector has no mask head.
    """
    model = unwrapped(runner.model)
    if getattr(model, 'with_mask', True) or hasattr(model, 'panoptic_head'):
        return
    for metric in metrics_of(cfg.get(f'{loader}_evaluator')):
        if 'segm' in str(metric.get('metric')):
            raise UserError(
                f'{loader}_evaluator.metric is {metric["metric"]}, and the model has no mask head: '
                f'set {loader}_evaluator.metric=bbox'
            )


def check_outputs(model: nn.Module) -> None:
    """Refuse a softmax over one class: it is always 1, the loss always 0.

    Raises:
        UserError: If a classifier or a segmentor has such a head.
    """
    for name in ('head', 'decode_head'):
        for head in _listed(getattr(model, name, None)):
            num_outputs = getattr(head, 'out_channels', num_classes_of(head))
            losses = _listed(getattr(head, 'loss_decode', getattr(head, 'loss_module', None)))
            # Label smoothing has the loss inside.
            kinds = [getattr(getattr(one, 'ce', one), 'use_sigmoid', None) for one in losses]
            if num_outputs == 1 and False in kinds:
                raise UserError(
                    f'model.{name} has one class, of which a softmax is always sure, so that '
                    'nothing is learnt: name the other one too, such as the background, in '
                    'metainfo.classes, and set num_classes=2'
                )


def _listed(found: Any) -> list[Any]:
    if isinstance(found, nn.ModuleList):
        return list(found)
    return [] if found is None else [found]


def check_channels(model: Mapping[str, Any], channels: Sequence[int]) -> None:
    """Validate ``in_channels`` of a neck or, without one, of the heads.

    Args:
        model: Settings of a model.
        channels: What its backbone gives.

    Raises:
        UserError: If they differ.
    """
    neck = model.get('neck')
    if neck is None or (isinstance(neck, Mapping) and 'in_channels' not in neck):
        takers = dict(_heads(model))
    elif isinstance(neck, Mapping) and isinstance(neck['in_channels'], (list, tuple)):
        takers = {'neck': neck}
    else:
        return
    for name, settings in takers.items():
        given = settings.get('in_channels')
        is_one = not isinstance(given, (list, tuple))
        index = settings.get('in_index', -1 if is_one else range(len(channels)))
        indices = [index] if isinstance(index, int) else list(index)
        if given is None or not all(-len(channels) <= i < len(channels) for i in indices):
            continue
        wanted = [channels[i] for i in indices]
        if ([given] if is_one else list(given)) != wanted:
            fit = str(wanted[0] if is_one else wanted).replace(' ', '')
            raise UserError(
                f'model.{name}.in_channels is {given}, which does not fit the backbone: set '
                f'model.{name}.in_channels={fit}'
            )


def _heads(model: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in ('decode_head', 'auxiliary_head', 'head'):
        heads = model.get(name)
        if isinstance(heads, Mapping):
            yield name, heads
        else:
            yield from ((f'{name}.{i}', head) for i, head in enumerate(heads or ()))


def _check_batches(loader: DataLoader) -> None:
    """Refuse an epoch without a single batch."""
    sampler = loader.batch_sampler
    if sampler is None or isinstance(getattr(sampler, 'sampler', None), InfiniteSampler):
        return
    if len(sampler) == 0:
        raise DataError(
            f'train_dataloader: {len(sampler.sampler)} images make no batch of '
            f'{sampler.batch_size} (train_dataloader.batch_size), and smaller ones are dropped: '
            'lower batch_size, or set train_dataloader.drop_last=False'
        )


def _check_monitors(runner: Runner, cfg: Config) -> None:
    """Refuse hooks and schedulers that monitor a metric which no evaluator computes."""
    known = metric_names(cfg.get('val_evaluator'))
    for place, name in _monitors(cfg):
        if not cfg.get('val_dataloader'):
            runner.logger.warning(f'{place} waits for a validation, and the config has none')
            continue
        is_known = known is None or name in known or name.endswith(OF_ONE_CLASS)
        if not is_known and name != 'auto':
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise UserError(f"{place}: no evaluator gives '{name}'; did you mean '{meant}'?")


def _monitors(cfg: Config) -> Iterator[tuple[str, str]]:
    """List the entries of a config that wait for a metric, each with its name."""
    saver = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = saver.get('save_best') or ()
    for name in [wanted] if isinstance(wanted, str) else wanted:
        yield 'default_hooks.checkpoint.save_best', name
    schedulers = cfg.get('param_scheduler') or ()
    schedulers = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    for key, entries in (('custom_hooks', cfg.get('custom_hooks') or ()), (_SCHEDULE, schedulers)):
        for number, entry in enumerate(entries):
            if type_name(entry).startswith(_MONITORING):
                yield f'{key}.{number}.monitor', entry.get('monitor', 'loss')
