"""Read folders of images with a label map each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from swinv2_mm.datasets.files import read_lines
from swinv2_mm.datasets.image_files import is_image_name
from swinv2_mm.errors import DataError

from .listing import IGNORED, INVALID, Entry, Listing, Sample, evenly
from .problems import Problem
from .sources import ZERO_LABEL, Source

_DEFAULT_IGNORE = 255


def read_label_maps(source: Source, listing: Listing, *, num_samples: int) -> Iterator[Problem]:
    """List images and maps and check that each has the other.

    Args:
        source: A data set of kind ``label maps``.
        listing: Is filled.
        num_samples: Images to draw.
    """
    image_suffix, map_suffix = (source.settings[k] for k in ('img_suffix', 'seg_map_suffix'))
    image_folder, map_folder = (source.folders.get(k) for k in ('img_path', 'seg_map_path'))
    listing.classes, listing.unit = source.classes or (), 'pixels'
    listing.label_table = label_table(source)
    if image_folder is None or map_folder is None:
        place = f'{source.name}.data_prefix'
        yield Problem('data-set-empty', place, detail='img_path, seg_map_path')
        return
    if source.annotation_file is not None and not source.annotation_file.is_dir():
        try:
            lines = [line.strip() for line in read_lines(str(source.annotation_file))]
        except DataError as error:
            yield Problem('annotation-file-broken', str(source.annotation_file), detail=str(error))
            return
        listing.content = stems = [
            listing.with_slashes(line, folder=image_folder, suffix=image_suffix) for line in lines
        ]
    else:
        names = _files_below(image_folder)
        stems = [n.removesuffix(image_suffix) for n in names if n.endswith(image_suffix)]
        # Label maps may lie beside their images.
        is_shared = image_folder == map_folder
        for name in names if image_suffix else ():
            is_map = is_shared and name.endswith(map_suffix)
            if is_image_name(name) and not name.endswith(image_suffix) and not is_map:
                detail = f'img_suffix is {image_suffix!r}'
                listing.other_suffixes[os.path.splitext(name)[1]] += 1
                yield Problem('image-other-suffix', str(image_folder / name), detail=detail)
        used = {stem + map_suffix for stem in stems}
        for name in _files_below(map_folder) if not is_shared else ():
            if name.endswith(map_suffix) and name not in used:
                yield Problem('label-map-unused', str(map_folder / name))
    listing.entries = [
        Entry(
            image=str(image_folder / (stem + image_suffix)),
            label_map=str(map_folder / (stem + map_suffix)),
        )
        for stem in stems
    ]
    if not stems:
        detail = f'no file ends in {image_suffix!r}'
        yield Problem('data-set-empty', str(image_folder), detail=detail)
    listing.samples = [Sample(entry=entry) for entry in evenly(listing.entries, num_samples)]


def label_table(source: Source) -> np.ndarray:
    """Return the class of each value of a label map.

    mmseg turns value 0 into 255 and lowers the others by one with ``reduce_zero_label``, then
    renumbers classes where the config names a part of those that the class of the data set has.

    Returns:
        (256,) class, ``IGNORED`` or ``INVALID`` of each value.
    """
    values = np.arange(256)
    if source.settings.get(ZERO_LABEL):
        values = np.where((values == 0) | (values == 255), 255, values - 1)
    classes = source.classes or ()
    stored = source.own_classes or classes
    wanted = {name: number for number, name in enumerate(classes)}
    meaning = np.full(256, INVALID)
    meaning[: len(stored)] = [wanted.get(name, IGNORED) for name in stored[:256]]
    ignore = source.settings.get('ignore_index', _DEFAULT_IGNORE)
    if 0 <= ignore < 256:
        meaning[ignore] = IGNORED
    return meaning[values]


def _files_below(folder: Path) -> list[str]:
    """Names relative to a folder, sorted; hidden files are left out as mmengine does."""
    found = []
    for parent, _, files in os.walk(folder, followlinks=True):
        found += [
            os.path.relpath(os.path.join(parent, f), folder) for f in files if not f.startswith('.')
        ]
    return sorted(found)
