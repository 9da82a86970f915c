"""Read and validate COCO files: categories, images, and annotations of each kind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from swinv2_mm.datasets.files import read_json, shown
from swinv2_mm.datasets.image_files import is_image_name
from swinv2_mm.errors import DataError

from .class_names import compare_names
from .instances import read_instances
from .listing import Entry, Listing
from .panoptic import read_panoptic
from .problems import Problem
from .sources import Source
from .values import is_name, is_number

# Beyond any image; pycocotools cannot count further.
_LONGEST_SIDE_PX = 10**6


def read_coco(
    source: Source,
    listing: Listing,
    *,
    is_thorough: bool,
    num_samples: int = 0,
    advance: Callable[[int], object] = lambda number: None,
) -> Iterator[Problem]:
    """Read a COCO file and check everything that needs no image.

    ``listing.content`` is the file without what is refused, its categories in the order of
    ``source.classes``: pycocotools, and with it the libraries, number classes by that list.

    Args:
        source: A data set of kind ``instances`` or ``panoptic``.
        listing: Is filled.
        is_thorough: Whether to look for warnings too; without, what is plainly right is passed
            over: COCO has 860,000 annotations.
        num_samples: Images to draw.
        advance: Called with the number of annotations done.
    """
    path = str(source.annotation_file)
    if source.annotation_file is None:
        yield Problem('data-set-empty', f'{source.name}.ann_file', detail='is not set')
        return
    try:
        content = _read_lists(path)
    except DataError as error:
        yield Problem('annotation-file-broken', path, detail=str(error))
        return
    listing.content = content
    yield from _read_categories(source, listing, path=path)
    images: dict[Any, Entry] = {}
    yield from _read_images(source, listing, images, path=path)
    read = read_panoptic if source.kind == 'panoptic' else read_instances
    yield from read(
        source,
        listing,
        images=images,
        is_thorough=is_thorough,
        num_samples=num_samples,
        advance=advance,
    )
    listing.entries = list(images.values())
    for entry in listing.entries:
        if not entry.num_labels:
            yield Problem('image-without-labels', entry.image, entry.place)
    if not listing.counts:
        yield Problem('data-set-empty', path, detail='no label of its classes')


def _read_lists(path: str) -> dict[str, list[dict]]:
    content = read_json(path)
    # The images of a challenge come without annotations.
    content = {'annotations': [], **content} if isinstance(content, dict) else {}
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DataError(f"annotation file {shown(path)} has no list of objects '{key}'")
    return content


def _read_categories(source: Source, listing: Listing, *, path: str) -> Iterator[Problem]:
    usable: dict[int, dict] = {}
    for number, category in enumerate(listing.content['categories']):
        category_id, name = category.get('id'), category.get('name')
        place, is_wanted = f'categories[{number}]', name in (source.classes or ())
        if not is_number(category_id) or not is_name(name):
            detail = 'needs a whole number as id, and a name'
            if is_wanted:
                detail = f'{name!r} has the id {category_id!r}'
            kind = 'category-unusable' if is_wanted else 'annotation-incomplete'
            yield Problem(kind, path, place, detail)
        elif category_id in usable:
            first = usable[category_id]['name']
            if is_wanted and name != first:
                detail = f'{name!r} has the id {category_id} of {first!r}'
                yield Problem('category-unusable', path, place, detail)
            yield Problem('category-id-repeated', path, f'category {category_id}', name)
        else:
            usable[category_id] = category
    categories = list(usable.values())
    if source.classes is not None:
        names = [category['name'] for category in categories]
        yield from compare_names(source.classes, names, file=path)
        order = {name: number for number, name in enumerate(source.classes)}
        categories.sort(key=lambda category: order.get(category['name'], len(order)))
        listing.classes = source.classes
        listing.left_out = tuple(name for name in names if name not in order)
        own = [name for name in names if name in order]
        listing.is_reordered = own != [c['name'] for c in categories[: len(own)]]
    listing.content['categories'] = categories


def _read_images(
    source: Source, listing: Listing, images: dict[Any, Entry], *, path: str
) -> Iterator[Problem]:
    """Fill ``images`` with the entries that can be used, by image id."""
    content = listing.content
    folder, map_folder = image_folder(source), source.folders.get('seg')
    map_suffix = source.settings.get('seg_map_suffix') or '.png'
    named: set[str] = set()
    kept = []
    for number, image in enumerate(content['images']):
        image_id, name = image.get('id'), image.get('file_name')
        size = (image.get('width'), image.get('height'))
        is_id = is_number(image_id) or isinstance(image_id, str)
        if not is_id or not is_name(name) or not all(map(_is_length, size)):
            yield Problem('image-incomplete', path, f'images[{number}]', _short(image))
        elif images and type(image_id) is not type(next(iter(images))):
            # pycocotools sorts them.
            detail = f'id {image_id!r} is of another kind than those before'
            yield Problem('image-incomplete', path, f'images[{number}]', detail)
        elif image_id in images:
            yield Problem('image-id-repeated', path, f'image {image_id}', name)
        else:
            name = image['file_name'] = listing.with_slashes(name, folder=folder)
            if name in named:
                yield Problem('image-listed-twice', path, f'image {image_id}', name)
            named.add(name)
            kept.append(image)
            label_map = None
            if map_folder is not None:
                label_map = os.path.join(map_folder, name.rpartition('.')[0] + map_suffix)
            images[image_id] = Entry(
                image=os.path.join(folder, name),
                place=f'image {image_id}',
                size_px=size,
                label_map=label_map,
            )
    content['images'] = kept


def image_folder(source: Source) -> Path:
    """Return where the images are: the data root, if the data set names no folder."""
    return source.folders.get('img') or Path(source.settings.get('data_root') or '')


def unused_images(folder: Path, used: set[str]) -> Iterator[Problem]:
    """Look for images below a folder that are none of ``used``, normalised paths."""
    for parent, _, files in os.walk(folder, followlinks=True):
        for file in sorted(files):
            path = os.path.normpath(os.path.join(parent, file))
            if path not in used and is_image_name(file):
                yield Problem('image-not-used', path)


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 1 <= value <= _LONGEST_SIDE_PX


def _short(entry: dict) -> str:
    text = json.dumps(entry)
    return text if len(text) <= 100 else f'{text[:97]}...'
