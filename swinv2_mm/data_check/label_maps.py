"""Folders of images with a label map each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .findings import Reporter
from .listing import Entry, Listing, Sample, evenly
from .sources import Source

# Classes of a map's values that are none.
IGNORED, INVALID = -1, -2
_DEFAULT_IGNORE = 255
_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def read_label_maps(
    source: Source, report: Reporter, *, num_samples: int, advance: Callable[[int], object]
) -> Listing:
    """List images and maps and check that each has the other.

    Args:
        source: A data set of kind ``label maps``.
        report: Takes the faults.
        num_samples: Images to draw.
        advance: Called with the number of images listed.
    """
    settings = source.settings
    image_suffix, map_suffix = settings['img_suffix'], settings['seg_map_suffix']
    image_folder, map_folder = (source.folders.get(k) for k in ('img_path', 'seg_map_path'))
    listing = Listing(classes=source.classes, unit='pixels', label_table=label_table(source))
    if image_folder is None or map_folder is None:
        report('data-set-empty', f'{source.name}.data_prefix', detail='img_path, seg_map_path')
        return listing
    if source.annotation_file is not None and not source.annotation_file.is_dir():
        try:
            text = source.annotation_file.read_text(encoding='utf-8')
        except (OSError, ValueError) as error:
            report('annotation-file-broken', source.annotation_file, detail=str(error))
            return listing
        stems = [line.strip() for line in text.splitlines()]
    else:
        names = _files_below(image_folder)
        stems = [n.removesuffix(image_suffix) for n in names if n.endswith(image_suffix)]
        for name in names:
            if not name.endswith(image_suffix) and name.lower().endswith(_IMAGE_SUFFIXES):
                # Label maps may lie beside their images.
                if not (image_folder == map_folder and name.endswith(map_suffix)):
                    detail = f'img_suffix is {image_suffix!r}'
                    report('image-other-suffix', image_folder / name, detail=detail)
        used = {stem + map_suffix for stem in stems}
        for name in _files_below(map_folder):
            if name.endswith(map_suffix) and name not in used and image_folder != map_folder:
                report('label-map-unused', map_folder / name)
    for stem in stems:
        entry = Entry(
            image=str(image_folder / (stem + image_suffix)),
            label_map=str(map_folder / (stem + map_suffix)),
        )
        listing.entries.append(entry)
        advance(1)
    if not stems:
        report('data-set-empty', image_folder, detail=f'no file ends in {image_suffix!r}')
    listing.samples = [Sample(entry=entry) for entry in evenly(listing.entries, num_samples)]
    return listing


def label_table(source: Source) -> np.ndarray:
    """What each value of a label map means.

    mmseg turns value 0 into 255 and lowers the others by one with ``reduce_zero_label``, then
    renumbers classes where the config names a part of those that the class of the data set has.

    Returns:
        (256,) class, ``IGNORED`` or ``INVALID`` of each value.
    """
    values = np.arange(256)
    if source.settings.get('reduce_zero_label'):
        values = np.where((values == 0) | (values == 255), 255, values - 1)
    stored = source.own_classes or source.classes
    wanted = {name: number for number, name in enumerate(source.classes)}
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
