"""Replace ``panopticapi``, which mmdet's panoptic data sets need and PyPI does not have.

Covers what mmdet calls: colours as segment ids, and panoptic quality (arXiv 1801.00868, equation
1). The real package, where installed, always wins.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np

NAME = 'panopticapi'
VOID = 0
# One more than the largest segment id that a colour can hold.
OFFSET = 256**3


def rgb2id(color: np.ndarray | list) -> np.ndarray | int:
    """Read segment ids from colours.

    Shapes:
        (..., 3), RGB from 0 to 255 -> (...), R + 256 G + 256^2 B
    """
    ids = np.asarray(color).astype(np.int32) @ np.array([1, 256, 256**2], np.int32)
    return ids if ids.ndim else int(ids)


def id2rgb(ids: np.ndarray | int) -> np.ndarray | list[int]:
    """Write segment ids as colours: the inverse of ``rgb2id``.

    Shapes:
        (...) -> (..., 3), uint8
    """
    digits = np.asarray(ids)[..., None] // np.array([1, 256, 256**2]) % 256
    return digits.astype(np.uint8) if digits.ndim > 1 else digits.tolist()


@dataclass
class Matches:
    """Segments of one class: summed IoU of matched pairs, and how many were matched or not."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: Matches) -> Matches:
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self

    def quality(self) -> dict[str, float]:
        """Panoptic, segmentation and recognition quality, each in [0, 1]."""
        size = self.tp + 0.5 * self.fp + 0.5 * self.fn
        return {
            'pq': self.iou / size if size else 0.0,
            'sq': self.iou / self.tp if self.tp else 0.0,
            'rq': self.tp / size if size else 0.0,
        }


class PQStat:
    """``Matches`` per category id; those of several images add up."""

    def __init__(self) -> None:
        self.matches: dict[int, Matches] = defaultdict(Matches)

    def __getitem__(self, category: int) -> Matches:
        return self.matches[category]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category, matches in other.matches.items():
            self.matches[category] += matches
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Average over the categories that occur, in the labels or the predictions.

        Args:
            categories: COCO's entry of each category id.
            isthing: Whether to average things or stuff; ``None`` for both.

        Returns:
            The averages with the number ``n`` of categories in them, and the values per category.
        """
        chosen = [
            category
            for category, entry in categories.items()
            if isthing is None or bool(entry['isthing']) == isthing
        ]
        per_class = {category: self[category].quality() for category in chosen}
        present = [c for c in chosen if self[c].tp + self[c].fp + self[c].fn]
        means = {
            name: sum(per_class[c][name] for c in present) / max(len(present), 1)
            for name in ('pq', 'sq', 'rq')
        }
        return {**means, 'n': len(present)}, per_class


def ensure_panopticapi() -> None:
    """Make ``import panopticapi`` work. Call it before the first import of mmdet."""
    if NAME in sys.modules or importlib.util.find_spec(NAME) is not None:
        return
    contents = {
        NAME: {},
        f'{NAME}.utils': {'rgb2id': rgb2id, 'id2rgb': id2rgb},
        f'{NAME}.evaluation': {'PQStat': PQStat, 'VOID': VOID, 'OFFSET': OFFSET},
    }
    for name, members in contents.items():
        module = ModuleType(name, 'Stand-in of swinv2_mm.')
        module.__spec__ = ModuleSpec(name, None, is_package=name == NAME)
        vars(module).update(members)
        sys.modules[name] = module
    sys.modules[NAME].__path__ = []
    for part in ('utils', 'evaluation'):
        setattr(sys.modules[NAME], part, sys.modules[f'{NAME}.{part}'])
