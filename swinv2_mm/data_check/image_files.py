"""Opening image files and label maps, and noticing what is wrong with them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from swinv2_mm.datasets.files import EmptyFile, MissingFile, read_bytes
from swinv2_mm.datasets.images import FORMATS
from swinv2_mm.errors import DataError

_ORIENTATION_TAG = 0x0112
# Orientations that exchange width and height.
_LYING = (5, 6, 7, 8)
_DEEP_MODES = ('I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N')
_MAP_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N')
# Images in flight: enough for the threads, few enough for flat memory.
_CHUNK = 64

T = TypeVar('T')
R = TypeVar('R')


class FileFault(ValueError):
    """A file cannot be used; ``kind`` ends a key of the catalogue."""

    def __init__(self, kind: str, detail: str = '') -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLook:
    """An image that could be read.

    Args:
        stored_px: (width, height) as stored.
        upright_px: The same after the turn that the EXIF tag asks for.
        orientation: The EXIF tag; 1 is upright.
        is_deep: Whether it has more than 8 bits a channel.
        digest: Hash of the file.
    """

    stored_px: tuple[int, int]
    upright_px: tuple[int, int]
    orientation: int
    is_deep: bool
    digest: bytes


def look_at_image(path: str) -> ImageLook:
    """Read every byte of an image.

    Raises:
        FileFault: If it is missing, empty, no image, or breaks off.
    """
    content = _content(path)
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise FileFault('unreadable', _without_address(error)) from error
    except Exception as error:
        raise FileFault('truncated', str(error)) from error
    with image:
        stored, mode = image.size, image.mode
        try:
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
            # An eighth of the pixels, but all of the bytes: four times as fast.
            image.draft(mode, (max(stored[0] // 8, 1), max(stored[1] // 8, 1)))
            image.load()
        except Exception as error:
            raise FileFault('truncated', str(error)) from error
    return ImageLook(
        stored_px=stored,
        upright_px=stored[::-1] if orientation in _LYING else stored,
        orientation=orientation,
        is_deep=mode in _DEEP_MODES,
        digest=hashlib.blake2b(content, digest_size=16).digest(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLook:
    """A label map that could be read: its size, and how many pixels each value has."""

    size_px: tuple[int, int]
    values: np.ndarray
    pixels: np.ndarray


def look_at_label_map(path: str, *, packs_ids: bool = False) -> MapLook:
    """Read a label map.

    Args:
        path: Of the picture.
        packs_ids: Whether red, green and blue are the digits of an id, as in panoptic maps.

    Raises:
        FileFault: If it is missing, unreadable or, unless ids are packed, in colour.
    """
    values = read_label_map(path, packs_ids=packs_ids)
    if values.dtype == np.uint8:
        pixels = np.bincount(values.ravel(), minlength=256)
        present = np.flatnonzero(pixels)
        pixels = pixels[present]
    else:
        present, pixels = np.unique(values, return_counts=True)
    return MapLook(size_px=values.shape[::-1], values=present, pixels=pixels)


def read_label_map(path: str, *, packs_ids: bool = False) -> np.ndarray:
    """Read the values of a label map, (H, W); see ``look_at_label_map``."""
    try:
        content = _content(path)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            mode = image.mode
            if packs_ids:
                red, green, blue = np.asarray(image.convert('RGB'), np.int64).transpose(2, 0, 1)
                return red + 256 * green + 256**2 * blue
            if mode not in _MAP_MODES:
                raise FileFault('mode', f'mode {mode}')
            values = np.asarray(image)
    except FileFault as fault:
        # Whatever is wrong with the bytes, the map is unreadable.
        kind = fault.kind if fault.kind in ('missing', 'mode') else 'unreadable'
        raise FileFault(kind, str(fault) or fault.kind) from fault
    except Exception as error:
        raise FileFault('unreadable', _without_address(error)) from error
    return values.astype(np.uint8) if values.dtype == bool else values


def _content(path: str) -> bytes:
    try:
        return read_bytes(path)
    except MissingFile as error:
        raise FileFault('missing') from error
    except EmptyFile as error:
        raise FileFault('zero-bytes') from error
    except DataError as error:
        raise FileFault('unreadable', str(error)) from error


def _without_address(error: Exception) -> str:
    """Pillow names the memory address of what it could not identify."""
    return 'no known image format' if isinstance(error, UnidentifiedImageError) else str(error)


def in_threads(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[R]:
    """Map in order, with few results in memory; decoding releases Python's lock."""
    items = iter(items)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        while chunk := list(islice(items, _CHUNK)):
            yield from pool.map(function, chunk)
