"""Read the model and the pretrained windows from what comes with a weights file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .layouts import WINDOWS_BUFFER
from .zoo import ReleasedModel, find_released

_MOST_CONFIG_BYTES = 16 << 20
_MOST_STAGES = 64


def declared_window_sizes(path: Path, *, metadata: Mapping[str, str], name: str) -> Any:
    """Return the windows that a file is said to be trained at, unchecked; ``None`` if unknown.

    Args:
        path: The file; a ``config.json`` of Hugging Face or timm may lie beside it.
        metadata: What a safetensors file says about itself.
        name: What the user called it, such as the name of a released model.
    """
    if WINDOWS_BUFFER in metadata:
        return _parsed(metadata[WINDOWS_BUFFER]) or metadata[WINDOWS_BUFFER]
    config = _neighbouring_config(path)
    if config.get('model_type') == 'swinv2':
        return _windows_of_hugging_face(config)
    released = released_model(path, name=name)
    return released and [list(window) for window in released.pretrained_window_sizes]


def released_model(path: Path, *, name: str) -> ReleasedModel | None:
    """Return the released model that a file is by its name, or by the config beside it.

    Args:
        path: The file.
        name: What the user called it.
    """
    architecture = str(_neighbouring_config(path).get('architecture', ''))
    known = (architecture, name, path.name, path.parent.name)
    return next(filter(None, map(find_released, known)), None)


def _neighbouring_config(path: Path) -> dict[str, Any]:
    try:
        file = path.parent / 'config.json'
        # Reading a pipe would block.
        content = file.read_text(encoding='utf-8') if _is_config(file) else ''
    except (OSError, UnicodeDecodeError):
        return {}
    config = _parsed(content)
    return config if isinstance(config, dict) else {}


def _is_config(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _MOST_CONFIG_BYTES


def _windows_of_hugging_face(config: Mapping[str, Any]) -> list[list[int]] | None:
    """Work out what ``Swinv2Config`` leaves to the model: windows are clipped to the maps.

    A pretrained window of 0 stands for the window itself.
    """
    try:
        patches = config['image_size'] // config['patch_size']
        pretrained = config.get('pretrained_window_sizes') or [0] * len(config['depths'])
        sides = [
            given or min(config['window_size'], patches // 2**stage)
            for stage, given in enumerate(pretrained[:_MOST_STAGES])
        ]
    except (KeyError, TypeError, ArithmeticError):
        return None
    return [[side, side] for side in sides]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
