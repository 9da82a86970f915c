"""Find the class names and colours of a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from torch import nn

from swinv2_mm.config.datasets import datasets_of
from swinv2_mm.data_check.class_names import check_places
from swinv2_mm.datasets.palette import Colour, class_colour, class_colours
from swinv2_mm.errors import DataError
from swinv2_mm.libraries import LIBRARIES
from swinv2_mm.models.class_count import num_classes_of


@dataclass(frozen=True)
class Classes:
    """Names and colours of classes by index.

    Attributes:
        names: One per number.
        palette: RGB, 0 to 255, one per number.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]

    def name(self, label: int) -> str:
        """Return the name of a class, also of one that is not known."""
        return self.names[label] if label < len(self.names) else f'class {label}'

    def colour(self, label: int) -> Colour:
        """Return the colour of a class, also of one that is not known."""
        return self.palette[label] if label < len(self.palette) else class_colour(label)


def find_classes(cfg: Config, *, checkpoint_meta: dict, model: nn.Module) -> Classes:
    """Look for names in the checkpoint, in the data sets of the config and in their classes.

    The checkpoint comes first: it was written by the training. Classes without a name are called
    by their number. Palettes of data sets hold for label maps, which are known by their colours;
    for thin boxes many of those colours are too dark.
    """
    count = num_classes_of(model)
    found = [meta for meta in (checkpoint_meta, *_metas(cfg)) if meta.get('classes')]
    meta = found[0] if found else {}
    if len(found) > 1 and meta is checkpoint_meta:
        _compare(meta['classes'], found[1]['classes'])
    names = [str(name) for name in meta.get('classes', ())]
    if count and len(names) > count:  # of other data: a class of COCO is not one of ADE20K
        names = []
    count = max(count, len(names))
    names += [f'class {number}' for number in range(len(names), count)]
    library = LIBRARIES.get(cfg.default_scope)
    palette = meta.get('palette') if library and library.has_label_maps else None
    return Classes(tuple(names), tuple(class_colours(count, palette=palette)))


def _compare(names: Sequence[str], configured: Sequence[str]) -> None:
    """Log that a config names the classes otherwise than the checkpoint, whose names count."""
    names = list(map(str, names))
    try:
        text = check_places(names, list(map(str, configured)), loader='config', whose='checkpoint')
    except DataError as error:
        text = str(error)
    if text:
        print_log(f"{text}; the checkpoint's names count", logger='current', level=logging.WARNING)


def _metas(cfg: Config) -> list[dict]:
    metas = []
    for loader in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        for dataset in datasets_of(cfg, loader):
            metas.append(dict(dataset.get('metainfo') or {}))
            if isinstance(dataset.get('type'), str):
                with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
                    cls = registry.get(dataset['type'])
                metas.append(dict(getattr(cls, 'METAINFO', None) or {}))
    # Some data sets say there the name of a file or of a list, not the names.
    return [m for m in metas if not isinstance(m.get('classes'), str)]
