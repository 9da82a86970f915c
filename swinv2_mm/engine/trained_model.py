"""Build a model of a config and load trained weights, without a Runner."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from swinv2_mm.checkpoint.loading import find_backbones
from swinv2_mm.config.entries import read_entry
from swinv2_mm.errors import UserError

from .config_errors import config_errors
from .filling import fill_model
from .training_state import open_checkpoint


def load_trained_model(
    cfg: Config, weights: str | Path, *, device: str | torch.device
) -> tuple[nn.Module, dict]:
    """Build the model of a config for prediction and fill it.

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
    model = build_model(cfg)
    opened = open_checkpoint(str(weights))
    fill_model(model, opened, class_map=read_entry(cfg, 'head_class_map'))
    try:
        model = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'device {device} cannot be used: {str(error).splitlines()[0]}') from error
    meta = opened.content.get('meta')
    meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
    return model, dict(meta) if isinstance(meta, dict) else {}


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config for one process.

    Raises:
        UserError: If there is none, or a value does not fit.
    """
    if not cfg.get('model'):
        raise UserError('the config has no model')
    with DefaultScope.overwrite_default_scope(cfg.default_scope), config_errors(cfg):
        # DINO of mmdet writes into its config, which could then not be built again.
        return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))


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
