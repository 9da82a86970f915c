"""Annotation files looked over before the libraries read them.

pycocotools writes where a broken mask tells it to, mmdet makes infinity of a number that is too
large, and a class number beyond the last one stops a GPU: what would do harm is found here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swinv2_mm.datasets.files import read_json, shown
from swinv2_mm.errors import DataError

from .coco_file import is_id, read_images
from .faults import Screened
from .instances import InstanceChecker
from .listing import Entry
from .masks import MAX_OVERHANG_RATE, MaskFault, encode
from .panoptic_screening import is_number, is_sound_panoptic
from .sources import Source

# Of one image: what mmdet compares with 200,000 anchors in 8 GB, and bitmaps of that size.
MAX_INSTANCES = 10_000
MAX_MASK_BYTES = 8 * 2**30


def screen_coco(path: str, *, is_panoptic: bool = False, with_masks: bool = False) -> Screened:
    """Look a COCO file over.

    Args:
        path: Of the file.
        is_panoptic: Whether its annotations are lists of segments.
        with_masks: Whether masks are read; without, they may be missing or broken.

    Raises:
        DataError: If it is no COCO file.
    """
    content = read_json(path)
    # The images of a challenge come without annotations.
    content = {'annotations': [], **content} if isinstance(content, dict) else {}
    for key in ('images', 'annotations', 'categories'):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DataError(f"annotation file {shown(path)} has no list of objects '{key}'")
    screened = Screened(content, with_masks=with_masks)
    kind = 'panoptic' if is_panoptic else 'instances'
    source = Source(
        name='', type_name='', kind=kind, annotation_file=Path(path), with_masks=with_masks
    )
    content['categories'] = list(_usable_categories(content['categories'], screened))
    images = read_images(source, content, screened.report)
    content['images'] = list(_usable_images(content['images'], images, screened))
    categories = {category['id'] for category in content['categories']}
    if is_panoptic:
        kept = [
            annotation
            for number, annotation in enumerate(content['annotations'])
            if is_sound_panoptic(annotation, number, images, categories, screened)
        ]
    else:
        screener = _InstanceScreener(source, screened, images=images, categories=categories)
        kept = [a for number, a in enumerate(content['annotations']) if screener.keeps(a, number)]
        crowded = set(_crowded(kept, images, screened, with_masks=with_masks))
        if crowded:
            kept = [a for a in kept if a['image_id'] not in crowded]
            content['images'] = [i for i in content['images'] if i['id'] not in crowded]
    content['annotations'] = kept
    return screened


class _InstanceScreener:
    """Decides on one annotation after another: fast where it is sound, in words where not."""

    def __init__(
        self, source: Source, screened: Screened, *, images: dict, categories: set
    ) -> None:
        self._screened = screened
        self._images = images
        self._categories = categories
        self._with_masks = source.with_masks
        self._seen: set = set()
        labels = dict.fromkeys(categories, 0)
        self._checker = InstanceChecker(source, screened.report, labels=labels, images=images)

    def keeps(self, annotation: dict, number: int) -> bool:
        """Whether an annotation can be used; if not, its faults are noted."""
        report, faults = self._screened.report, self._screened.faults
        before = len(faults)
        if not self._is_sound(annotation):
            self._checker.check(annotation, number=number)
            if len(faults) == before:
                self._check_further(annotation)
        if len(faults) == before:
            if annotation['id'] in self._seen:
                report('annotation-id-repeated', id=f'annotation {annotation["id"]}')
            self._seen.add(annotation['id'])
        return len(faults) == before

    def _check_further(self, annotation: dict) -> None:
        """Check what stops pycocotools, but not the libraries: they pass over a tiny box."""
        place, report = f'annotation {annotation["id"]}', self._screened.report
        if not is_number(annotation['id']):
            report('annotation-incomplete', id=place, detail='its id is no whole number')
        elif self._with_masks:
            width, height = map(int, self._images[annotation['image_id']].size_px)
            try:
                encode(annotation['segmentation'], width=width, height=height)
            except MaskFault as fault:
                report(fault.kind, id=place, detail=str(fault))

    def _is_sound(self, annotation: dict) -> bool:
        """Whether an annotation has no fault for sure. COCO has 860,000 of them."""
        try:
            width, height = self._images[annotation['image_id']].size_px
            x, y, w, h = annotation['bbox']
            return (
                is_number(annotation['id'])
                and annotation['category_id'] in self._categories
                and 'iscrowd' in annotation
                # A box without a pixel inside of the image is left to the slower check.
                and -width <= x < width
                and -height <= y < height
                and 1 <= w <= 2 * width
                and 1 <= h <= 2 * height
                and x + w > 0
                and y + h > 0
                and 0 < annotation['area'] <= 4 * width * height
                and (not self._with_masks or _are_sound(annotation['segmentation'], width, height))
            )
        except (KeyError, TypeError, ValueError):
            return False


def _are_sound(polygons: Any, width: float, height: float) -> bool:
    """Whether polygons have an area and end near the image."""
    if not isinstance(polygons, list) or not polygons:
        return False
    limit = MAX_OVERHANG_RATE * max(width, height)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return False
        xs, ys = polygon[::2], polygon[1::2]
        # A sum with NaN is NaN, which is not less than anything.
        if not abs(sum(polygon)) < limit * len(polygon):
            return False
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        if not (-limit <= left and right <= limit and -limit <= top and bottom <= limit):
            return False
        # Thinner than that, or beyond the edge, it may hold no pixel.
        if right - left < 1 or bottom - top < 1 or left > width - 1 or top > height - 1:
            return False
        if right < 1 or bottom < 1:
            return False
    return True


def _usable_categories(categories: list[dict], screened: Screened) -> Iterator[dict]:
    seen = set()
    for number, category in enumerate(categories):
        category_id = category.get('id')
        if not is_number(category_id) or not isinstance(category.get('name'), str):
            detail = 'needs a whole number as id, and a name'
            screened.report('annotation-incomplete', id=f'categories[{number}]', detail=detail)
        elif category_id in seen:
            screened.report('category-id-repeated', id=f'category {category_id}')
        else:
            seen.add(category_id)
            yield category


def _usable_images(
    entries: list[dict], images: dict[Any, Entry], screened: Screened
) -> Iterator[dict]:
    """The entries that became an image of ``images``, from which others are taken out."""
    left = dict(images)
    kind = next((type(image_id) for image_id in images), int)
    for number, entry in enumerate(entries):
        image = left.get(entry.get('id')) if is_id(entry.get('id')) else None
        is_first = image is not None and image.size_px == (entry.get('width'), entry.get('height'))
        if not is_first or not image.image.endswith(str(entry.get('file_name'))):
            continue
        image_id = entry['id']
        del left[image_id]
        # pycocotools sorts the ids of images.
        if type(image_id) is kind and (kind is str or is_number(image_id)):
            yield entry
        else:
            detail = f'id {image_id!r} is of another kind than those before'
            screened.report('image-incomplete', id=f'images[{number}]', detail=detail)
            del images[image_id]


def _crowded(
    annotations: list[dict], images: dict, screened: Screened, *, with_masks: bool
) -> Iterator[Any]:
    for image_id, count in Counter(a['image_id'] for a in annotations).items():
        width, height = images[image_id].size_px
        mask_bytes = count * width * height if with_masks else 0
        if count > MAX_INSTANCES or mask_bytes > MAX_MASK_BYTES:
            detail = f'{count:,} instances'
            if count <= MAX_INSTANCES:
                detail += f', their masks have {mask_bytes / 2**30:.1f} GiB'
            screened.report('image-crowded', id=f'image {image_id}', detail=detail)
            yield image_id
