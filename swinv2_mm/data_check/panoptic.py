"""COCO files of panoptic segments: each image has a map whose colours are segment ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from .coco_file import is_id, read_categories, read_coco, read_images
from .findings import Reporter
from .listing import Listing, Sample, evenly
from .sources import Source


def read_panoptic(
    source: Source, report: Reporter, *, num_samples: int, advance: Callable[[int], object]
) -> Listing:
    """Read the file; the maps are compared with it when they are opened.

    Args:
        source: A data set of kind ``panoptic``.
        report: Takes the faults.
        num_samples: Images to draw.
        advance: Called with the number of images done.
    """
    listing = Listing(classes=source.classes, unit='segments')
    content = read_coco(source, report)
    if content is None:
        return listing
    path = str(source.annotation_file)
    labels = read_categories(source, content, report)
    images = read_images(source, content, report)
    described = set()
    for number, annotation in enumerate(content['annotations']):
        advance(1)
        image_id, segments = annotation.get('image_id'), annotation.get('segments_info')
        place = f'annotations[{number}]'
        if not is_id(image_id) or not _are_segments(segments):
            detail = 'lacks image_id or segments_info'
            report('annotation-incomplete', path, id=place, detail=detail)
            continue
        place = f'image {image_id}'
        if image_id not in images:
            report('annotation-image-unknown', path, id=place)
            continue
        if image_id in described:
            report('annotation-repeated', path, id=place)
        described.add(image_id)
        ids = Counter(segment.get('id') for segment in segments)
        for segment in segments:
            segment_place = f'segment {segment.get("id")} of {place}'
            if any(segment.get(key) is None for key in ('id', 'category_id', 'area', 'bbox')):
                detail = 'lacks id, category_id, area or bbox'
                report('annotation-incomplete', path, id=segment_place, detail=detail)
            elif not is_id(segment['category_id']) or segment['category_id'] not in labels:
                detail = f'category_id {segment["category_id"]}'
                report('annotation-category-unknown', path, id=segment_place, detail=detail)
            elif labels[segment['category_id']] is not None:
                listing.counts[source.classes[labels[segment['category_id']]]] += 1
            if ids[segment.get('id')] > 1:
                report('annotation-id-repeated', path, id=segment_place)
        images[image_id] = replace(images[image_id], segments=frozenset(ids) - {None})
    for image_id, entry in images.items():
        if image_id not in described:
            report('image-without-labels', entry.image, id=entry.id)
    listing.entries = list(images.values())
    listing.samples = [Sample(entry=entry) for entry in evenly(listing.entries, num_samples)]
    return listing


def _are_segments(segments: object) -> bool:
    return isinstance(segments, list) and all(
        isinstance(segment, dict) and is_id(segment.get('id')) for segment in segments
    )
