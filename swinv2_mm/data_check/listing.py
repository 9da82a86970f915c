"""Define the result of reading a data set: images to open, label counts, samples to draw."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .sources import Source

# Stand for the class of values of a label map that have no class.
IGNORED, INVALID = -1, -2

T = TypeVar('T')


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image and what its file must agree with.

    Args:
        image: Path.
        place: What finds it in the annotations; may be empty.
        size_px: Annotated (width, height).
        label_map: Path of its label map or panoptic map.
        segments: Segment ids that its panoptic map must show.
        label: Class of the whole image.
        num_labels: Instances to learn from.
    """

    image: str
    place: str = ''
    size_px: tuple[float, float] | None = None
    label_map: str | None = None
    segments: frozenset[int] | None = None
    label: str = ''
    num_labels: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One instance to draw.

    Args:
        label: Place of its class in the list of names.
        box: x, y, width, height in pixels.
        segmentation: Polygons or RLE, as in the file.
        crowd: Whether it stands for a group.
    """

    label: int
    box: tuple[float, float, float, float]
    segmentation: Any = None
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image of the contact sheet, with its instances."""

    entry: Entry
    marks: tuple[Mark, ...] = ()


@dataclass(kw_only=True)
class Listing:
    """A data set as read; a reader fills it while it yields problems.

    Args:
        source: Where it is.
        classes: Names, in the order of the labels.
        entries: Every image.
        counts: Labels per class name.
        left_out: Categories of the file that the config leaves out.
        num_not_learnt: Instances of its classes that are crowds, or smaller than a pixel.
        remarks: What the log of a run should say, a sentence each.
        unit: What ``counts`` counts.
        label_table: (256,) class of each value of a label map, or ``IGNORED`` or ``INVALID``;
            ``None`` if the maps' values are not checked.
        ignored: Pixels of each value that is ignored.
        other_suffixes: Images that are passed over, by how their names end.
        num_outside: Images beside class folders, which are passed over.
        samples: Images to draw.
        num_opened: How many images were opened.
        content: What can be used of the annotation file: a COCO object or lines of text.
        is_reordered: Whether ``content`` has its classes in another order than the file.
        num_renamed: How many names of images in ``content`` have slashes where the file has
            back-slashes.
    """

    source: Source
    classes: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    left_out: tuple[str, ...] = ()
    num_not_learnt: int = 0
    remarks: list[str] = field(default_factory=list)
    unit: str = 'instances'
    label_table: np.ndarray | None = None
    ignored: Counter[int] = field(default_factory=Counter)
    other_suffixes: Counter[str] = field(default_factory=Counter)
    num_outside: int = 0
    samples: list[Sample] = field(default_factory=list)
    num_opened: int = 0
    content: Any = None
    is_reordered: bool = False
    num_renamed: int = 0

    def with_slashes(self, name: str, *, folder: Path, suffix: str = '') -> str:
        """Return the name of a file with slashes, if back-slashes, as of Windows, lead nowhere."""
        if '\\' not in name or os.path.exists(os.path.join(folder, name + suffix)):
            return name
        self.num_renamed += 1
        return name.replace('\\', '/')


def evenly(items: Sequence[T], number: int | None) -> Sequence[T]:
    """Pick ``number`` of the items at even distances; all of them for ``None``."""
    if number is None or number >= len(items):
        return items
    return [items[i * len(items) // number] for i in range(number)]
