"""Validate instance annotations of a COCO file: ids, boxes and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from .listing import Entry, Listing, Mark, Sample, evenly
from .masks import MAX_OVERHANG_RATE, MaskFault, disagreement, encode, overhang
from .problems import Problem
from .sources import Source
from .values import LARGEST_NUMBER, is_box, is_number

_ID_KEYS = ('image_id', 'category_id')
_KEYS = (*_ID_KEYS, 'bbox', 'area', 'iscrowd')
# How far a rounded box may reach beyond the edge of the image.
_EDGE_PX = 1.0
# From how many boxes on their form is judged, and which rate of [x1, y1, x2, y2] would end beyond
# the image if they were [x, y, width, height].
_FEWEST_BOXES = 10
_LEAST_BEYOND_RATE = 0.1
_FRACTION_MARGIN = 0.01
# Limits for one image: mmdet compares that many with 200,000 anchors in 8 GB; bitmaps take as much.
MAX_INSTANCES = 10_000
MAX_MASK_BYTES = 8 * 2**30


def read_instances(
    source: Source,
    listing: Listing,
    *,
    images: dict[Any, Entry],
    is_thorough: bool,
    num_samples: int,
    advance: Callable[[int], object],
) -> Iterator[Problem]:
    """Check the annotations of ``listing.content``, keep those that can be used, and count them.

    Args:
        source: A data set of kind ``instances``.
        listing: Holds the usable categories and images.
        images: Images by id; those with more instances than memory can hold are taken out.
        is_thorough: As for ``read_coco``.
        num_samples: Images to draw.
        advance: Called with the number of annotations done.
    """
    content = listing.content
    place = {name: number for number, name in enumerate(source.classes or ())}
    labels = {c['id']: place.get(c['name']) for c in content['categories']}
    checker = _InstanceChecker(source, labels=labels, images=images)
    labelled: Counter = Counter()
    kept = []
    for number, annotation in enumerate(content['annotations']):
        problems = []
        if is_thorough or not checker.is_plain(annotation):
            problems = list(checker.problems(annotation, number=number))
        if not any(problem.is_refused for problem in problems):
            problems += checker.repetitions(annotation, is_thorough=is_thorough)
        if not any(problem.is_refused for problem in problems):
            kept.append(annotation)
            label = labels[annotation['category_id']]
            if label is not None and _is_learnt(annotation):
                listing.counts[source.classes[label]] += 1
                labelled[annotation['image_id']] += 1
            elif label is not None:
                listing.num_not_learnt += 1
        yield from problems
        advance(1)
    yield from _unit_problems(kept, images, path=checker.path)
    crowded = {}
    for image_id, count in Counter(a['image_id'] for a in kept).items():
        if detail := _excess(count, images[image_id], with_masks=source.with_masks):
            crowded[image_id] = images.pop(image_id)
            yield Problem('image-crowded', checker.path, f'image {image_id}', detail)
    if crowded:
        kept = [a for a in kept if a['image_id'] not in crowded]
        content['images'] = [i for i in content['images'] if i['id'] not in crowded]
    chosen = evenly([i for i in images if labelled[i]], num_samples)
    listing.samples = _samples(chosen, content['annotations'], images=images, labels=labels)
    content['annotations'] = kept
    for image_id, count in labelled.items():
        if image_id in images:
            images[image_id] = replace(images[image_id], num_labels=count)


class _InstanceChecker:
    """Validate annotations in turn, and find repeated ids and boxes among them."""

    def __init__(
        self, source: Source, *, labels: dict[int, int | None], images: dict[Any, Entry]
    ) -> None:
        self.path = str(source.annotation_file)
        self._with_masks = source.with_masks
        self._labels = labels
        self._images = images
        self._ids: set[int] = set()
        self._boxes: set[tuple] = set()

    def is_plain(self, annotation: dict) -> bool:
        """Whether an annotation is certainly valid, ids aside; takes a tenth of the full check."""
        try:
            width, height = self._images[annotation['image_id']].size_px
            x, y, w, h = annotation['bbox']
            return (
                is_number(annotation['id'])
                and annotation['category_id'] in self._labels
                and 'iscrowd' in annotation
                # A box without a pixel inside of the image is left to the full check.
                and -width <= x < width
                and -height <= y < height
                and 1 <= w <= 2 * width
                and 1 <= h <= 2 * height
                and x + w > 0
                and y + h > 0
                and 0 < annotation['area'] <= 4 * width * height
                and (not self._with_masks or _are_plain(annotation['segmentation'], width, height))
            )
        except (KeyError, TypeError, ValueError):
            return False

    def problems(self, annotation: dict, *, number: int) -> Iterator[Problem]:
        """Check an annotation by itself."""
        place = f'annotation {annotation.get("id", f"at place {number}")}'
        missing = [key for key in _KEYS if annotation.get(key) is None]
        missing += [key for key in _ID_KEYS if not isinstance(annotation.get(key, 0), (int, str))]
        if missing:
            yield Problem('annotation-incomplete', self.path, place, f'lacks {", ".join(missing)}')
        if not is_number(annotation.get('id')):
            yield Problem('annotation-incomplete', self.path, place, 'its id is no whole number')
        elif annotation['id'] == 0:
            yield Problem('annotation-id-zero', self.path, place)
        if set(missing) - {'iscrowd'}:
            return
        if annotation['category_id'] not in self._labels:
            detail = f'category_id {annotation["category_id"]}'
            yield Problem('annotation-category-unknown', self.path, place, detail)
        image = self._images.get(annotation['image_id'])
        if image is None:
            detail = f'image_id {annotation["image_id"]}'
            yield Problem('annotation-image-unknown', self.path, place, detail)
            return
        place = f'{place} of {image.place}'
        box_problems = list(self._box_problems(annotation, image, place=place))
        yield from box_problems
        if self._with_masks and not any(problem.is_refused for problem in box_problems):
            yield from self._mask_problems(annotation, image, place=place)

    def repetitions(self, annotation: dict, *, is_thorough: bool) -> list[Problem]:
        """Look for the id, and if thorough for the box, of an earlier annotation."""
        found, place = [], f'annotation {annotation["id"]}'
        if annotation['id'] in self._ids:
            found.append(Problem('annotation-id-repeated', self.path, place))
        self._ids.add(annotation['id'])
        if is_thorough:
            key = (annotation['image_id'], annotation['category_id'], *annotation['bbox'])
            if key in self._boxes:
                detail = str(annotation['bbox'])
                found.append(Problem('annotation-repeated', self.path, place, detail))
            self._boxes.add(key)
        return found

    def _box_problems(self, annotation: dict, image: Entry, *, place: str) -> Iterator[Problem]:
        box, (width, height) = annotation['bbox'], image.size_px
        if not is_box(box):
            yield Problem('box-malformed', self.path, place, str(box))
            return
        detail = f'{box}, image {width:g}x{height:g}'
        x, y, w, h = box
        if w <= 0 or h <= 0:
            yield Problem('box-without-area', self.path, place, detail)
        elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
            yield Problem('box-outside-image', self.path, place, detail)
        elif max(-x, -y, w, h) > MAX_OVERHANG_RATE * max(width, height):
            yield Problem('box-malformed', self.path, place, detail)
        elif max(-x, -y, x + w - width, y + h - height) > _EDGE_PX:
            yield Problem('box-beyond-edge', self.path, place, detail)
        if 0 < w < 1 or 0 < h < 1:
            yield Problem('box-tiny', self.path, place, detail)
        area = annotation['area']
        if not isinstance(area, (int, float)) or not 0 < area < LARGEST_NUMBER:
            yield Problem('area-not-positive', self.path, place, f'area {area}')

    def _mask_problems(self, annotation: dict, image: Entry, *, place: str) -> Iterator[Problem]:
        segmentation, box = annotation.get('segmentation'), annotation['bbox']
        if not segmentation:
            yield Problem('mask-missing', self.path, place)
            return
        width, height = map(int, image.size_px)
        try:
            rle = encode(segmentation, width=width, height=height)
        except MaskFault as fault:
            yield Problem(fault.kind, self.path, place, str(fault))
            return
        beyond = overhang(segmentation, width=width, height=height)
        if beyond > _EDGE_PX:
            yield Problem('mask-outside-image', self.path, place, f'by {beyond:.1f} px')
        difference = disagreement(segmentation, box, rle=rle, width=width, height=height)
        if difference and min(box[2:]) >= 1:
            yield Problem('mask-box-disagree', self.path, place, difference)


def _are_plain(polygons: Any, width: float, height: float) -> bool:
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


def _unit_problems(
    annotations: list[dict], images: dict[Any, Entry], *, path: str
) -> Iterator[Problem]:
    """Recognise boxes in another form than COCO's, of a whole file."""
    if len(annotations) < _FEWEST_BOXES:
        return
    num_beyond, are_corners, are_fractions = 0, True, True
    for annotation in annotations:
        width, height = images[annotation['image_id']].size_px
        x, y, w, h = annotation['bbox']
        is_beyond = x + w > width + _EDGE_PX or y + h > height + _EDGE_PX
        num_beyond += is_beyond
        is_corners = 0 <= x < w <= width + _EDGE_PX and 0 <= y < h <= height + _EDGE_PX
        are_corners = are_corners and is_corners
        are_fractions = are_fractions and max(x, y, w, h) <= 1 + _FRACTION_MARGIN
        if not are_corners and not are_fractions:
            return
    if are_fractions:
        yield Problem('boxes-are-fractions', path, detail=f'all {len(annotations)}')
    elif num_beyond > _LEAST_BEYOND_RATE * len(annotations):
        detail = f'{num_beyond} of {len(annotations)} reach beyond their image otherwise'
        yield Problem('boxes-are-corners', path, detail=detail)


def _is_learnt(annotation: dict) -> bool:
    is_left_out = annotation.get('iscrowd') or annotation.get('ignore')
    return not is_left_out and min(annotation['bbox'][2:]) >= 1


def _excess(count: int, image: Entry, *, with_masks: bool) -> str:
    """Describe what an image has too much of; empty if memory can hold it."""
    width, height = image.size_px
    mask_bytes = count * width * height if with_masks else 0
    if count > MAX_INSTANCES:
        return f'{count:,} instances'
    if mask_bytes > MAX_MASK_BYTES:
        return f'{count:,} instances, their masks have {mask_bytes / 2**30:.1f} GiB'
    return ''


def _samples(
    chosen: list, annotations: list[dict], *, images: dict[Any, Entry], labels: dict
) -> list[Sample]:
    marks: dict[Any, list[Mark]] = {image_id: [] for image_id in chosen}
    for annotation in annotations if chosen else ():
        image_id, category_id = annotation.get('image_id'), annotation.get('category_id')
        if not (isinstance(image_id, (int, str)) and isinstance(category_id, int)):
            continue
        label, box = labels.get(category_id), annotation.get('bbox')
        if image_id in marks and label is not None and is_box(box):
            marks[image_id].append(
                Mark(
                    label=label,
                    box=tuple(box),
                    segmentation=annotation.get('segmentation'),
                    crowd=bool(annotation.get('iscrowd')),
                )
            )
    return [Sample(entry=images[i], marks=tuple(marks[i])) for i in chosen]
