"""Warn of optimizer settings that do not go with the model or the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from swinv2_mm.checkpoint.load_report import shortened

from .parameter_rules import decayed_against_rule

# Ratio of batch sizes from which a learning rate no longer fits.
_FAR_BATCH = 2


def warning_of_decay(model: nn.Module, optimizer: Optimizer) -> str | None:
    """Return a warning if an optimizer decays what SwinV2's recipe exempts."""
    names = decayed_against_rule(model, optimizer)
    if not names:
        return None
    return (
        f'weight decay applies to {len(names)} parameters that the recipe of SwinV2 exempts, such '
        f"as {shortened(names)}: set optim_wrapper.constructor='SwinV2OptimWrapperConstructor'"
    )


def warning_of_batch(
    auto_scale_lr: Mapping[str, Any],
    loader: DataLoader | Mapping[str, Any],
    *,
    num_loaders: int,
) -> str | None:
    """Return a warning if a learning rate is meant for a batch of a very different size.

    Args:
        auto_scale_lr: The config entry.
        loader: Data loader of the training.
        num_loaders: Batches of the loader in an update: of all processes, and accumulated.
    """
    meant = auto_scale_lr.get('base_batch_size')
    if auto_scale_lr.get('enable') or type(meant) is not int or meant < 1:
        return None
    size = loader.batch_size if isinstance(loader, DataLoader) else loader.get('batch_size')
    if type(size) is not int:
        return None
    images = size * num_loaders
    if max(images / meant, meant / images) < _FAR_BATCH:
        return None
    return (
        f'the learning rate is meant for {meant} images per update, and there are {images}: '
        '--auto-scale-lr scales it'
    )
