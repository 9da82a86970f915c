"""Validate and encode instance masks of COCO files: polygons and both forms of RLE."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# Distance of two edges that rounding, or drawing along pixel centres or corners, can explain.
_TOLERANCE_PX = 3.0
_TOLERANCE_RATE = 0.1
# A rasteriser walks along every edge: refuse outlines of another scale before it runs for hours.
MAX_OVERHANG_RATE = 10.0
_MAX_DIGITS = 6


class MaskFault(ValueError):
    """A mask cannot be used; ``kind`` is a key of the catalogue."""

    def __init__(self, kind: str, detail: str = '') -> None:
        super().__init__(detail)
        self.kind = kind


def encode(segmentation: Any, *, width: int, height: int) -> dict:
    """Turn any segmentation into compressed RLE, after a check that it can be.

    Raises:
        MaskFault: If it is malformed, of another size than the image, or without a pixel.
    """
    if isinstance(segmentation, dict):
        rle = _checked_rle(segmentation, width=width, height=height)
    elif isinstance(segmentation, list):
        polygons = [_checked_polygon(p, width=width, height=height) for p in segmentation]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        raise MaskFault('mask-malformed', f'a {type(segmentation).__name__}')
    if coco_mask.area(rle) == 0:
        raise MaskFault('mask-empty')
    return rle


def overhang(segmentation: Any, *, width: int, height: int) -> float:
    """How far well-formed polygons reach beyond the image, in pixels; 0 for RLE."""
    if not isinstance(segmentation, list):
        return 0.0
    points = _points(segmentation)
    return float(max((-points).max(), (points - (width, height)).max(), 0.0))


def disagreement(
    segmentation: Any, box: tuple[float, ...], *, rle: dict, width: int, height: int
) -> str:
    """Say how a mask and its box differ; empty if they agree.

    A side agrees with the pixels or with the corners of the polygons: no pixel is left of a tip
    that is thinner than one.

    Args:
        segmentation: Well-formed.
        box: x, y, width, height in pixels; what lies beyond the image does not count.
        rle: The same mask as ``encode`` returns it.
        width: Width of the image.
        height: Height of the image.
    """
    x, y, w, h = coco_mask.toBbox(rle)
    limit = np.array([width, height, width, height])
    of_box = np.clip([box[0], box[1], box[0] + box[2], box[1] + box[3]], 0, limit)
    distance = np.abs(of_box - (x, y, x + w, y + h))
    if isinstance(segmentation, list):
        points = _points(segmentation)
        corners = np.clip(np.r_[points.min(0), points.max(0)], 0, limit)
        distance = np.minimum(distance, np.abs(of_box - corners))
    sides = np.tile(of_box[2:] - of_box[:2], 2)
    if (distance <= np.maximum(_TOLERANCE_PX, _TOLERANCE_RATE * sides)).all():
        return ''
    shown = ', '.join(f'{v:g}' for v in (x, y, w, h))
    return f'box [{", ".join(f"{v:g}" for v in box)}], mask within [{shown}]'


def _points(polygons: list[list[float]]) -> np.ndarray:
    return np.concatenate([np.asarray(p, np.float64).reshape(-1, 2) for p in polygons])


def _checked_polygon(polygon: Any, *, width: int, height: int) -> list[float]:
    if not isinstance(polygon, list):
        raise MaskFault('mask-malformed', f'a polygon that is a {type(polygon).__name__}')
    if len(polygon) < 6 or len(polygon) % 2:
        raise MaskFault('mask-malformed', f'a polygon of {len(polygon)} numbers')
    try:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise MaskFault('mask-malformed', 'a polygon that is not all numbers') from error
    if not np.isfinite(points).all():
        raise MaskFault('mask-malformed', 'a polygon with NaN or infinity')
    if (np.abs(points) > MAX_OVERHANG_RATE * max(width, height)).any():
        raise MaskFault('mask-malformed', f'a polygon that reaches {np.abs(points).max():g} px')
    return polygon


def _checked_rle(rle: dict, *, width: int, height: int) -> dict:
    size, counts = rle.get('size'), rle.get('counts')
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise MaskFault('mask-malformed', f'RLE of size {size}')
    if list(size) != [height, width]:
        raise MaskFault('mask-size', f'RLE of size {list(size)}, image [{height}, {width}]')
    if isinstance(counts, list):
        try:
            runs = np.asarray(counts, np.int64).reshape(-1)
        except (TypeError, ValueError, OverflowError) as error:
            raise MaskFault('mask-malformed', 'RLE that is not all numbers') from error
    elif isinstance(counts, (str, bytes)):
        runs = run_lengths(counts)
    else:
        raise MaskFault('mask-malformed', f'RLE whose counts are a {type(counts).__name__}')
    if (runs < 0).any() or runs.sum() != width * height:
        raise MaskFault(
            'mask-malformed', f'RLE of {runs.sum()} pixels, the image has {width * height}'
        )
    if isinstance(counts, list):
        return coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)
    return {'size': [height, width], 'counts': counts}


def run_lengths(text: str | bytes) -> np.ndarray:
    """Decode untrusted compressed RLE: broken counts make pycocotools write out of bounds.

    Digits of 5 bits, lowest first, in characters from '0' on; bit 5 says that another follows, bit
    4 of the last is the sign. From the fourth number on, differences to the run two before.

    Raises:
        MaskFault: If the text is none.
    """
    try:
        raw = text.encode('ascii') if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise MaskFault('mask-malformed', 'RLE with characters that are none of RLE') from error
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - ord('0')
    if not codes.size or (codes < 0).any() or (codes > 63).any():
        raise MaskFault('mask-malformed', 'RLE with characters that are none of RLE')
    is_last = (codes & 32) == 0
    if not is_last[-1]:
        raise MaskFault('mask-malformed', 'RLE that breaks off')
    starts = np.r_[0, np.flatnonzero(is_last)[:-1] + 1]
    digits = np.diff(np.r_[starts, codes.size])
    if digits.max() > _MAX_DIGITS:
        raise MaskFault('mask-malformed', 'RLE with numbers beyond any image')
    place = np.arange(codes.size) - np.repeat(starts, digits)
    runs = np.add.reduceat((codes & 31) << (5 * place), starts)
    runs -= np.where(codes[is_last] & 16, np.int64(1) << (5 * digits), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
