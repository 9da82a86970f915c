"""Adapt configs for the inferencers and tools of mmdet, mmsegmentation and mmpretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from .file import as_config

# Inferencers find the loading of images by its name, and put their own in its place.
_STANDARD = {'LoadCheckedImage': 'LoadImageFromFile', 'LoadCheckedAnnotations': 'LoadAnnotations'}


def config_for_inferencers(cfg: str | Path | Config) -> Config:
    """Return a config that ``DetInferencer``, ``MMSegInferencer``, ``get_model`` and tools take.

    Args:
        cfg: A config file, or a config, which is not modified.

    Raises:
        UserError: If the file is no config.
    """
    cfg = as_config(cfg)
    _rename(list(cfg.values()))
    if preprocessor := cfg.get('model', {}).get('data_preprocessor'):
        # Where mmsegmentation's tool for CAMs reads it; a model's own goes before.
        cfg.setdefault('data_preprocessor', preprocessor)
    return cfg


def _rename(value: Any) -> None:
    if isinstance(value, dict):
        if value.get('type') in _STANDARD:
            value['type'] = _STANDARD[value['type']]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _rename(item)
