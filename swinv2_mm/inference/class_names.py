"""Names and colours of the classes that a model tells apart."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

# Successive hues differ by the golden ratio: no two near in number are near in colour.
_HUE_STEP = 0.618034


@dataclass(frozen=True)
class Classes:
    """What the numbers in predictions mean.

    Attributes:
        names: One per number.
        palette: RGB, 0 to 255, one per number.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]


def find_classes(cfg: Config, *, checkpoint_meta: dict, model: nn.Module) -> Classes:
    """Look for names in the checkpoint, in the data sets of the config and in their classes.

    The checkpoint comes first: it was written by the training. Classes without a name are called
    by their number, classes without a colour get one.
    """
    count = _num_classes(model)
    found = [meta for meta in (checkpoint_meta, *_metas(cfg)) if meta.get('classes')]
    meta = found[0] if found else {}
    names = [str(name) for name in meta.get('classes', ())]
    if count and len(names) > count:  # of other data: a class of COCO is not one of ADE20K
        names = []
    palette = _as_colours(meta.get('palette'))
    count = max(count, len(names))
    names += [f'class {number}' for number in range(len(names), count)]
    palette += [_colour(number) for number in range(len(palette), count)]
    return Classes(tuple(names), tuple(palette[:count]))


def _num_classes(model: nn.Module) -> int:
    """Most classes that any part says it tells apart (an RPN says 1); 0 if none says so."""
    counts = [getattr(module, 'num_classes', None) for module in model.modules()]
    return max((c for c in counts if isinstance(c, int)), default=0)


def _metas(cfg: Config) -> list[dict]:
    metas = []
    for loader in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        dataset = (cfg.get(loader) or {}).get('dataset') or {}
        while isinstance(inner := dataset.get('dataset'), dict):
            dataset = inner
        metas.append(dict(dataset.get('metainfo') or {}))
        if isinstance(dataset.get('type'), str):
            with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
                metas.append(dict(getattr(registry.get(dataset['type']), 'METAINFO', None) or {}))
    # Some data sets say there the name of a file or of a list, not the names.
    return [m for m in metas if not isinstance(m.get('classes'), str)]


def _as_colours(palette: object) -> list[tuple[int, int, int]]:
    if not isinstance(palette, Sequence) or isinstance(palette, str):
        return []  # mmdet may say 'random'
    return [tuple(int(channel) for channel in colour) for colour in palette]


def _colour(number: int) -> tuple[int, int, int]:
    value = 0.95 - 0.15 * (number % 3)
    red, green, blue = colorsys.hsv_to_rgb(number * _HUE_STEP % 1, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)
