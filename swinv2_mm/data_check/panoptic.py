"""Validate panoptic annotations of a COCO file, whose segment ids are colours of a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .listing import Entry, Listing, Sample, evenly
from .problems import Problem
from .sources import Source
from .values import LARGEST_NUMBER, is_box, is_name, is_number


def read_panoptic(
    source: Source,
    listing: Listing,
    *,
    images: dict[Any, Entry],
    is_thorough: bool,
    num_samples: int,
    advance: Callable[[int], object],
) -> Iterator[Problem]:
    """Check the segments of every image; the maps are compared with them when they are opened.

    Arguments are those of ``read_instances``.
    """
    content, path = listing.content, str(source.annotation_file)
    listing.unit = 'segments'
    place_of = {name: number for number, name in enumerate(source.classes or ())}
    for category in content['categories']:
        name, is_thing = category['name'], category.get('isthing')
        # Heads number things before stuff, by the config; mmdet tells them apart by the file.
        expected = None if source.thing_classes is None else name in source.thing_classes
        if name in place_of and (is_thing not in (0, 1) or expected not in (None, is_thing)):
            yield Problem('class-thing-or-stuff', path, name, f'{name!r}, isthing {is_thing}')
    labels = {c['id']: place_of.get(c['name']) for c in content['categories']}
    kept, described = [], set()
    for number, annotation in enumerate(content['annotations']):
        advance(1)
        problems = list(
            _problems(annotation, number=number, images=images, labels=labels, path=path)
        )
        image_id, segments = annotation.get('image_id'), annotation.get('segments_info')
        if not any(problem.is_refused for problem in problems):
            if image_id in described:
                problems.append(Problem('annotation-repeated', path, f'image {image_id}'))
            described.add(image_id)
            folder = source.folders.get('seg', Path())
            annotation['file_name'] = listing.with_slashes(annotation['file_name'], folder=folder)
            kept.append(annotation)
            known = [labels[segment['category_id']] for segment in segments]
            names = [source.classes[label] for label in known if label is not None]
            listing.counts.update(names)
            ids = frozenset(segment['id'] for segment in segments)
            images[image_id] = replace(images[image_id], segments=ids, num_labels=len(names))
        yield from problems
    content['annotations'] = kept
    chosen = evenly(list(images.values()), num_samples)
    listing.samples = [Sample(entry=entry) for entry in chosen]


def _problems(
    annotation: dict, *, number: int, images: dict[Any, Entry], labels: dict, path: str
) -> Iterator[Problem]:
    place = f'annotations[{number}]'
    image_id, segments = annotation.get('image_id'), annotation.get('segments_info')
    if not isinstance(image_id, (int, str)) or not isinstance(segments, list):
        detail = 'lacks image_id or segments_info'
        yield Problem('annotation-incomplete', path, place, detail)
        return
    if image_id not in images:
        yield Problem('annotation-image-unknown', path, place, f'image_id {image_id}')
        return
    if not is_name(annotation.get('file_name')):
        yield Problem('annotation-incomplete', path, place, 'lacks file_name')
    ids: Counter = Counter()
    for segment in segments:
        segment = segment if isinstance(segment, dict) else {}
        category_id, area = segment.get('category_id'), segment.get('area')
        place = f'segment {segment.get("id")} of image {image_id}'
        is_area = isinstance(area, (int, float)) and abs(area) < LARGEST_NUMBER
        has_shape = is_box(segment.get('bbox')) and is_area and 'iscrowd' in segment
        if not is_number(segment.get('id')) or category_id is None or not has_shape:
            detail = 'lacks id, category_id, area, bbox or iscrowd'
            yield Problem('annotation-incomplete', path, place, detail)
            continue
        if not isinstance(category_id, int) or category_id not in labels:
            detail = f'category_id {category_id}'
            yield Problem('annotation-category-unknown', path, place, detail)
        ids[segment['id']] += 1
        if ids[segment['id']] == 2:
            yield Problem('annotation-id-repeated', path, place)
