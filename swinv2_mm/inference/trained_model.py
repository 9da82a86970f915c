"""A model of a config with trained weights in it, outside any run."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from swinv2_mm.checkpoint.layouts import WINDOWS_BUFFER
from swinv2_mm.checkpoint.loading import find_backbones
from swinv2_mm.checkpoint.reading import read_weights
from swinv2_mm.engine.runner import CheckedRunner
from swinv2_mm.errors import UserError


class _WeightReader(CheckedRunner):
    """Of a Runner only what reads weights: no log folder, no data, no report on the machine."""

    def __init__(self, model: nn.Module, *, cfg: Config) -> None:
        self.model = model
        self.cfg = cfg
        self.logger = MMLogger.get_current_instance()
        self._hooks = []
        self._resume = False
        self._train_loop = None


def load_trained_model(
    cfg: Config, weights: str | Path, *, device: str | torch.device
) -> tuple[nn.Module, dict]:
    """Build the model of a config for prediction.

    Args:
        cfg: A whole config with ``default_scope``.
        weights: What ``load_from`` of a config takes: a checkpoint of this config, or weights of
            any known layout that fill the whole model.
        device: Such as ``cpu`` or ``cuda:1``.

    Returns:
        The model in evaluation mode, and what its file says about the data it was trained on
        (``classes`` and perhaps ``palette``; empty if it says nothing).

    Raises:
        UserError: If the weights cannot be read safely or do not fit, or there is no such device.
    """
    cfg = cfg.copy()
    # Both are for a training's start; a file that is the result of one has all of it.
    cfg.pop('fresh_parameters', None)
    if cfg.get('head_class_map') is not None and _is_own(weights):
        cfg.pop('head_class_map')
    try:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise UserError(f'the model of the config: {error}') from error
    checkpoint = _WeightReader(model, cfg=cfg).load_checkpoint(str(weights))
    try:
        model = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'device {device} cannot be used: {str(error).splitlines()[0]}') from error
    meta = checkpoint.get('meta')
    meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
    return model, dict(meta) if isinstance(meta, dict) else {}


def _is_own(weights: str | Path) -> bool:
    return any(name.endswith(WINDOWS_BUFFER) for name in read_weights(str(weights)).tensors)


def set_window_size(model: nn.Module, window_size: int | tuple) -> None:
    """Set the windows of the backbone inside a model, in tokens.

    Raises:
        UserError: If there is no SwinV2 in the model, or the size does not fit it.
    """
    backbones = find_backbones(model)
    if not backbones:
        raise UserError('window size: the model of this config has no SwinV2 backbone')
    for backbone in backbones:
        try:
            backbone.set_window_size(window_size)
        except ValueError as error:
            raise UserError(f'window size: {error}') from error
