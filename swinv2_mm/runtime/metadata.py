"""Describe an exported file in its metadata, and read the config from there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swinv2_mm.config.datasets import testing_pipeline
from swinv2_mm.errors import UserError
from swinv2_mm.libraries import LIBRARIES

from .files import is_exported, read_metadata

# MMEngine imports and calls whatever a ``type`` with a point names, such as a function of
# ``subprocess``. Configs that import classes have such names too.
_CLASS = re.compile(r'(?:mmengine|mmcv|mmdet|mmseg|mmpretrain|swinv2_mm)(?:\.\w+)*\.[A-Z]\w*')


def describe(cfg: Config, *, classes: Sequence[str]) -> dict[str, Any]:
    """Return what a file says about the model that it holds.

    Args:
        cfg: The config of the model.
        classes: Names by number.
    """
    library = LIBRARIES.get(cfg.get('default_scope'))
    steps = [dict(step) for step in testing_pipeline(cfg) or ()]
    return {
        'task': library.task if library else None,
        'classes': list(classes),
        'input': {
            'name': 'images',
            'layout': 'NCHW',
            'channels': 'RGB',
            'range': [0, 255],
            'before': [repr(step) for step in steps if 'Resize' in str(step['type'])],
        },
        # Python literals, which keep tuples apart from lists and run no code.
        'config': repr(cfg.to_dict()),
    }


def config_in(path: str | Path) -> Config:
    """Return the config that a file was exported with.

    Raises:
        UserError: If it is no exported file, or holds none.
    """
    if not is_exported(path):
        raise UserError(f'{path}: name a config too; only an exported file holds its own')
    text = read_metadata(path).get('config', '')
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f'{path} holds no config that can be read: name the config too') from error
    if not isinstance(found, dict):
        raise UserError(f'{path} holds no config that can be read: name the config too')
    for name in _types(found):
        if '.' in name and not _CLASS.fullmatch(name):
            raise UserError(
                f'{path}: its config names {name}, which may be any program; if you trust it, '
                'name the config too'
            )
    # For messages and results; a training writes the config under this name.
    return Config(found, cfg_text=text, filename=f'{path}.py')


def _types(value: Any) -> Iterator[str]:
    """Yield the names of all types in a config."""
    if isinstance(value, dict):
        if isinstance(name := value.get('type'), str):
            yield name
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        for entry in value:
            yield from _types(entry)
