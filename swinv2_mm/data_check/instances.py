"""COCO files of instances: ids, boxes and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from .coco_file import is_id, read_categories, read_coco, read_images
from .findings import Reporter
from .listing import Entry, Listing, Mark, Sample, evenly
from .masks import MAX_OVERHANG_RATE, MaskFault, disagreement, encode, overhang
from .sources import Source

_ID_KEYS = ('id', 'image_id', 'category_id')
_KEYS = (*_ID_KEYS, 'bbox', 'area', 'iscrowd')
# Rounding of boxes that touch the edge.
_EDGE_PX = 1.0
# Beyond any area and any coordinate: float32 would make infinity of it.
_LARGEST_NUMBER = 1e15


def read_instances(
    source: Source, report: Reporter, *, num_samples: int, advance: Callable[[int], object]
) -> Listing:
    """Read the file and check everything that needs no image.

    Args:
        source: A data set of kind ``instances``.
        report: Takes the faults.
        num_samples: Images to draw.
        advance: Called with the number of annotations done.
    """
    content = read_coco(source, report)
    if content is None:
        return Listing(classes=source.classes)
    labels = read_categories(source, content, report)
    images = read_images(source, content, report)
    checker = InstanceChecker(source, report, labels=labels, images=images)
    labelled: Counter = Counter()
    counts: Counter[str] = Counter()
    for number, annotation in enumerate(content['annotations']):
        label = checker.check(annotation, number=number)
        if label is not None:
            counts[source.classes[label]] += 1
            labelled[annotation['image_id']] += 1
        advance(1)
    for image_id, entry in images.items():
        if not labelled[image_id]:
            report('image-without-labels', entry.image, id=entry.id)
    if not counts:
        report('data-set-empty', source.annotation_file, detail='no instance of its classes')
    chosen = evenly([i for i in images if labelled[i]], num_samples)
    return Listing(
        classes=source.classes,
        entries=list(images.values()),
        counts=counts,
        samples=_samples(chosen, content['annotations'], images=images, labels=labels),
    )


class InstanceChecker:
    """Checks one annotation after another; remembers ids and boxes to notice repetitions."""

    def __init__(
        self,
        source: Source,
        report: Reporter,
        *,
        labels: dict[Any, int | None],
        images: dict[Any, Entry],
    ) -> None:
        self.path = str(source.annotation_file)
        self.with_masks = source.with_masks
        self.report = report
        self.labels = labels
        self.images = images
        self.ids: set = set()
        self.boxes: set[tuple] = set()

    def check(self, annotation: dict, *, number: int) -> int | None:
        """Check an annotation; returns its label if the library would learn from it."""
        missing = [key for key in _KEYS if annotation.get(key) is None]
        missing += [key for key in _ID_KEYS if key not in missing and not is_id(annotation[key])]
        if missing:
            place = f'annotation {annotation.get("id", f"at place {number}")}'
            self.report(
                'annotation-incomplete', self.path, id=place, detail=f'lacks {", ".join(missing)}'
            )
            if missing != ['iscrowd']:
                return None
        place = f'annotation {annotation["id"]}'
        self._check_id(annotation['id'], place=place)
        image = self.images.get(annotation['image_id'])
        if image is None:
            detail = f'image_id {annotation["image_id"]}'
            self.report('annotation-image-unknown', self.path, id=place, detail=detail)
        if annotation['category_id'] not in self.labels:
            detail = f'category_id {annotation["category_id"]}'
            self.report('annotation-category-unknown', self.path, id=place, detail=detail)
            return None
        if image is None or self.labels[annotation['category_id']] is None:
            return None
        if not self._check_box(annotation, image, place=place):
            return None
        self._check_mask(annotation, image, place=place)
        is_learnt = not annotation.get('iscrowd') and not annotation.get('ignore')
        return self.labels[annotation['category_id']] if is_learnt else None

    def _check_id(self, annotation_id: Any, *, place: str) -> None:
        if annotation_id in self.ids:
            self.report('annotation-id-repeated', self.path, id=place)
        if annotation_id == 0:
            self.report('annotation-id-zero', self.path, id=place)
        self.ids.add(annotation_id)

    def _check_box(self, annotation: dict, image: Entry, *, place: str) -> bool:
        """Check box and area; returns whether the box can be used."""
        box, (width, height) = annotation['bbox'], image.size_px
        place = f'{place} of {image.id}'
        if not _is_four_numbers(box):
            self.report('box-malformed', self.path, id=place, detail=str(box))
            return False
        shown = f'{box}, image {width:g}x{height:g}'
        x, y, w, h = box
        if w <= 0 or h <= 0:
            self.report('box-without-area', self.path, id=place, detail=shown)
            return False
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            self.report('box-outside-image', self.path, id=place, detail=shown)
            return False
        if max(-x, -y, w, h) > MAX_OVERHANG_RATE * max(width, height):
            self.report('box-malformed', self.path, id=place, detail=shown)
            return False
        if max(-x, -y, x + w - width, y + h - height) > _EDGE_PX:
            self.report('box-beyond-edge', self.path, id=place, detail=shown)
        if w < 1 or h < 1:
            self.report('box-tiny', self.path, id=place, detail=shown)
            return False
        key = (annotation['image_id'], annotation['category_id'], x, y, w, h)
        if key in self.boxes:
            self.report('annotation-repeated', self.path, id=place, detail=str(box))
        self.boxes.add(key)
        area = annotation['area']
        if not isinstance(area, (int, float)) or not 0 < area < _LARGEST_NUMBER:
            self.report('area-not-positive', self.path, id=place, detail=f'area {area}')
            return False
        return True

    def _check_mask(self, annotation: dict, image: Entry, *, place: str) -> None:
        segmentation = annotation.get('segmentation')
        place = f'{place} of {image.id}'
        if not segmentation:
            if self.with_masks:
                self.report('mask-missing', self.path, id=place)
            return
        width, height = map(int, image.size_px)
        try:
            rle = encode(segmentation, width=width, height=height)
        except MaskFault as fault:
            self.report(fault.kind, self.path, id=place, detail=str(fault))
            return
        beyond = overhang(segmentation, width=width, height=height)
        if beyond > _EDGE_PX:
            self.report('mask-outside-image', self.path, id=place, detail=f'by {beyond:.1f} px')
        difference = disagreement(
            segmentation, annotation['bbox'], rle=rle, width=width, height=height
        )
        if difference:
            self.report('mask-box-disagree', self.path, id=place, detail=difference)


def _is_four_numbers(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        # False for NaN too; math.isfinite raises at integers that no float can hold.
        and all(isinstance(v, (int, float)) and abs(v) < _LARGEST_NUMBER for v in box)
    )


def _samples(
    chosen: list, annotations: list[dict], *, images: dict[Any, Entry], labels: dict
) -> list[Sample]:
    marks: dict[Any, list[Mark]] = {image_id: [] for image_id in chosen}
    for annotation in annotations:
        image_id, category_id = annotation.get('image_id'), annotation.get('category_id')
        if not (is_id(image_id) and is_id(category_id) and image_id in marks):
            continue
        label, box = labels.get(category_id), annotation.get('bbox')
        if label is not None and _is_four_numbers(box):
            marks[annotation['image_id']].append(
                Mark(
                    label=label,
                    box=tuple(box),
                    segmentation=annotation.get('segmentation'),
                    crowd=bool(annotation.get('iscrowd')),
                )
            )
    return [Sample(entry=images[i], marks=tuple(marks[i])) for i in chosen]
