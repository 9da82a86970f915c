"""Annotations that are lists of segments, looked over before panopticapi reads them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .coco_file import is_id
from .faults import Screened

# Beyond any coordinate and any area.
_LARGEST_NUMBER = 1e15


def is_sound_panoptic(
    annotation: dict, number: int, images: dict, categories: set, screened: Screened
) -> bool:
    """Whether the segments of an image can be used; if not, the first fault is noted."""
    image_id, segments = annotation.get('image_id'), annotation.get('segments_info')
    place = f'annotations[{number}]'
    if not is_id(image_id) or not isinstance(segments, list):
        screened.report('annotation-incomplete', id=place)
        return False
    if image_id not in images:
        screened.report('annotation-image-unknown', id=place, detail=f'image_id {image_id}')
        return False
    if not isinstance(annotation.get('file_name'), str):
        screened.report('annotation-incomplete', id=place, detail='lacks file_name')
        return False
    place = f'image {image_id}'
    numbers = Counter()
    for segment in segments:
        segment = segment if isinstance(segment, dict) else {}
        box, segment_id = segment.get('bbox'), segment.get('id')
        values = [*box, segment.get('area')] if isinstance(box, list) and len(box) == 4 else [None]
        are_numbers = all(isinstance(v, (int, float)) and abs(v) < _LARGEST_NUMBER for v in values)
        if not is_number(segment_id) or not are_numbers or 'iscrowd' not in segment:
            screened.report('annotation-incomplete', id=f'segment {segment_id} of {place}')
            return False
        if not is_id(segment.get('category_id')) or segment['category_id'] not in categories:
            detail = f'category_id {segment.get("category_id")}'
            screened.report('annotation-category-unknown', id=place, detail=detail)
            return False
        numbers[segment_id] += 1
    if repeated := [i for i, times in numbers.items() if times > 1]:
        screened.report('annotation-id-repeated', id=f'segment {repeated[0]} of {place}')
    return not repeated


def is_number(value: Any) -> bool:
    """Whether a value is a whole number that NumPy can hold."""
    return type(value) is int and abs(value) < 2**63
