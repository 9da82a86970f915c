"""The frame of a COCO file: its lists, categories and images."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from swinv2_mm.datasets.files import read_json
from swinv2_mm.errors import DataError

from .class_names import check_numbering
from .findings import Reporter
from .listing import Entry
from .sources import Source

_IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


# Beyond any image; pycocotools cannot count further.
_LONGEST_SIDE_PX = 10**6


def read_coco(source: Source, report: Reporter) -> dict[str, list[dict]] | None:
    """Read the file; ``None``, with the fault reported, if there is nothing to go on with."""
    path = source.annotation_file
    if path is None:
        report('data-set-empty', f'{source.name}.ann_file', detail='is not set')
        return None
    try:
        content = read_json(str(path))
    except DataError as error:
        report('annotation-file-broken', path, detail=str(error))
        return None
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            report('annotation-file-broken', path, detail=f"has no list of objects '{key}'")
            return None
    return content


def read_categories(
    source: Source, content: dict[str, list[dict]], report: Reporter
) -> dict[Any, int | None]:
    """Check the categories against the config.

    Returns:
        Category id -> place in ``source.classes``, ``None`` for one that is left out. By name:
        what the annotators meant, even where the order is wrong.
    """
    path = str(source.annotation_file)
    valid = [c for c in content['categories'] if is_id(c.get('id')) and is_name(c.get('name'))]
    for category in content['categories']:
        if category not in valid:
            report('annotation-incomplete', path, id='categories', detail=_short(category))
    for category_id, times in Counter(c['id'] for c in valid).items():
        if times > 1:
            names = [c['name'] for c in valid if c['id'] == category_id]
            report('category-id-repeated', path, id=f'category {category_id}', detail=str(names))
    names = [c['name'] for c in valid]
    check_numbering(source.classes, names, report, file=path)
    place = {name: number for number, name in enumerate(source.classes)}
    # The first of an id that occurs twice.
    return {c['id']: place.get(c['name']) for c in reversed(valid)}


def read_images(
    source: Source, content: dict[str, list[dict]], report: Reporter
) -> dict[Any, Entry]:
    """Check the image entries; returns those that can be used, by image id."""
    path = str(source.annotation_file)
    folder = image_folder(source)
    map_folder = source.folders.get('seg')
    map_suffix = source.settings.get('seg_map_suffix') or '.png'
    images: dict[Any, Entry] = {}
    named: set[str] = set()
    for number, image in enumerate(content['images']):
        image_id, name = image.get('id'), image.get('file_name')
        size = (image.get('width'), image.get('height'))
        if not is_id(image_id) or not is_name(name) or not all(map(_is_length, size)):
            report('image-incomplete', path, id=f'images[{number}]', detail=_short(image))
            continue
        if image_id in images:
            report('image-id-repeated', path, id=f'image {image_id}', detail=name)
            continue
        if name in named:
            report('image-listed-twice', path, id=f'image {image_id}', detail=name)
        named.add(name)
        images[image_id] = Entry(
            image=os.path.join(folder, name),
            id=f'image {image_id}',
            size_px=size,
            label_map=os.path.join(map_folder, name.rpartition('.')[0] + map_suffix)
            if map_folder
            else None,
        )
    return images


def image_folder(source: Source) -> Path:
    """Where the images are: the data root, if the data set names no folder."""
    return source.folders.get('img') or Path(source.settings.get('data_root') or '')


def report_unused_images(folder: Path, used: set[str], report: Reporter) -> None:
    """Report images below a folder that are none of ``used``, normalised paths."""
    for parent, _, files in os.walk(folder, followlinks=True):
        for file in sorted(files):
            path = os.path.normpath(os.path.join(parent, file))
            if path not in used and file.lower().endswith(_IMAGE_SUFFIXES):
                report('image-not-used', path)


def is_id(value: Any) -> bool:
    """Whether a value can be an id."""
    return isinstance(value, (int, str))


def is_name(value: Any) -> bool:
    """Whether a value can be a name."""
    return isinstance(value, str) and bool(value)


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 1 <= value <= _LONGEST_SIDE_PX


def _short(entry: dict) -> str:
    text = json.dumps(entry)
    return text if len(text) <= 100 else f'{text[:97]}...'
