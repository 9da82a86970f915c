"""Open the images and label maps of a data set and compare them with the annotations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import ExifTags

from swinv2_mm.datasets.files import FileFault
from swinv2_mm.datasets.image_files import eight_bit_rgb, opened, read_label_map
from swinv2_mm.ordered_map import map_in_threads

from .listing import IGNORED, INVALID, Entry, Listing
from .problems import Problem

# EXIF orientations that exchange width and height.
_LYING = (5, 6, 7, 8)
_DEEP_MODES = ('I', 'F', 'I;16', 'I;16B', 'I;16L', 'I;16N')
# Value of a panoptic pixel that belongs to no segment.
_VOID = 0
_LISTED_VALUES = 5
# Images in flight: enough for the threads, few enough for flat memory.
NUM_AHEAD = 64

T = TypeVar('T')
R = TypeVar('R')


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLook:
    """A label map that could be read: its size, and how many pixels each value has."""

    size_px: tuple[int, int]
    values: np.ndarray
    pixels: np.ndarray


class Digests:
    """Record the hash of every image, to find duplicates within and across data sets."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, Entry]] = {}

    def check(self, digest: bytes, entry: Entry, *, data_set: str) -> Iterator[Problem]:
        """Look for an image whose bytes were seen before; training sets must come first."""
        first_set, other = self._first.setdefault(digest, (data_set, entry))
        if other is entry:
            return
        detail = f'same as {other.image}'
        if first_set.startswith('train') and not data_set.startswith('train'):
            yield Problem('image-repeated-in-train', entry.image, entry.place, detail)
        elif other.image == entry.image:
            # The same files listed by two data sets; within one, the lists themselves are checked.
            return
        elif other.label != entry.label:
            detail += f' ({other.label or "no label"} there, {entry.label or "no label"} here)'
            yield Problem('image-with-two-labels', entry.image, entry.place, detail)
        else:
            yield Problem('image-repeated', entry.image, entry.place, detail)


def open_images(
    listing: Listing,
    entries: list[Entry],
    *,
    data_set: str,
    digests: Digests,
    workers: int,
    advance: Callable[[int], object],
) -> Iterator[Problem]:
    """Open images and maps, and count the pixels of label maps.

    Args:
        listing: Takes the pixel counts.
        entries: Entries of the listing to open.
        data_set: Their name in reports.
        digests: Hashes of the images seen so far.
        workers: Threads.
        advance: Called with the number of images done.
    """

    def look(entry: Entry) -> tuple:
        return _caught(look_at_image, entry.image), _caught(_look_at_map, entry)

    for entry, looks in map_in_threads(look, entries, num_threads=workers, num_ahead=NUM_AHEAD):
        image, label_map = looks.result()
        if isinstance(image, FileFault):
            kind = f'image-{image.kind}'
            yield Problem(kind, entry.image, entry.place, image.detail)
        else:
            yield from _check_image(entry, image)
            yield from digests.check(image.digest, entry, data_set=data_set)
        if isinstance(label_map, FileFault):
            kind = map_problem(label_map)
            yield Problem(kind, entry.label_map, entry.place, label_map.detail)
        elif label_map is not None:
            if isinstance(image, ImageLook) and label_map.size_px != image.upright_px:
                sizes = f'the map is {_size(label_map.size_px)}'
                detail = f'{sizes}, the image {_size(image.upright_px)}'
                yield Problem('label-map-size', entry.label_map, entry.place, detail)
            yield from _check_map(entry, label_map, listing)
        listing.num_opened += 1
        advance(1)


def count_pixels(listing: Listing, entries: list[Entry], *, workers: int) -> Iterator[Problem]:
    """Count the pixels of label maps alone, and check them."""

    def look_at_map(entry: Entry) -> MapLook | FileFault | None:
        return _caught(_look_at_map, entry)

    for entry, future in map_in_threads(
        look_at_map, entries, num_threads=workers, num_ahead=NUM_AHEAD
    ):
        look = future.result()
        if isinstance(look, MapLook):
            yield from _check_map(entry, look, listing)
        elif isinstance(look, FileFault):
            yield Problem(map_problem(look), entry.label_map, entry.place, look.detail)


def map_problem(fault: FileFault) -> str:
    """Return the kind of problem that a label map has: with any damage, it is unreadable."""
    kind = fault.kind if fault.kind in ('missing', 'mode') else 'unreadable'
    return f'label-map-{kind}'


def look_at_image(path: str) -> ImageLook:
    """Read every byte of an image.

    Raises:
        FileFault: If it is missing, empty, no image, or breaks off.
    """
    with opened(path) as (image, content):
        stored, mode = image.size, image.mode
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        # An eighth of the pixels, but all of the bytes: four times as fast.
        image.draft(mode, (max(stored[0] // 8, 1), max(stored[1] // 8, 1)))
        image.load()
        if mode in _DEEP_MODES:
            eight_bit_rgb(image)
    return ImageLook(
        stored_px=stored,
        upright_px=stored[::-1] if orientation in _LYING else stored,
        orientation=orientation,
        is_deep=mode in _DEEP_MODES,
        digest=hashlib.blake2b(content, digest_size=16).digest(),
    )


def _look_at_map(entry: Entry) -> MapLook | None:
    if entry.label_map is None:
        return None
    values = read_label_map(entry.label_map, packs_ids=entry.segments is not None)
    if values.dtype == np.uint8:
        pixels = np.bincount(values.ravel(), minlength=256)
        present = np.flatnonzero(pixels)
        pixels = pixels[present]
    else:
        present, pixels = np.unique(values, return_counts=True)
    return MapLook(size_px=values.shape[::-1], values=present, pixels=pixels)


def _caught(look: Callable[[T], R], item: T) -> R | FileFault:
    try:
        return look(item)
    except FileFault as fault:
        return fault


def _check_image(entry: Entry, image: ImageLook) -> Iterator[Problem]:
    if image.is_deep:
        yield Problem('image-deep', entry.image, entry.place)
    if entry.size_px is not None and tuple(entry.size_px) != image.upright_px:
        detail = f'the image is {_size(image.upright_px)}, annotated {_size(entry.size_px)}'
        is_turned = tuple(entry.size_px) == image.stored_px
        kind = 'image-rotated-labels' if is_turned else 'image-size'
        yield Problem(kind, entry.image, entry.place, detail)
    elif image.orientation != 1:
        detail = f'orientation {image.orientation}'
        yield Problem('image-rotated', entry.image, entry.place, detail)


def _check_map(entry: Entry, label_map: MapLook, listing: Listing) -> Iterator[Problem]:
    values, table = label_map.values, listing.label_table
    if entry.segments is not None:
        is_shown = set(values.tolist()) - {_VOID}
        for kind, ids in (
            ('segment-missing', entry.segments - is_shown),
            ('segment-unlisted', is_shown - entry.segments),
        ):
            if ids:
                detail = f'segments {_first(sorted(ids))}'
                yield Problem(kind, entry.label_map, entry.place, detail)
    elif table is not None:
        meaning = np.full(values.shape, INVALID)
        in_table = (values >= 0) & (values < len(table))
        meaning[in_table] = table[values[in_table]]
        wrong = meaning == INVALID
        if wrong.any():
            pixels = int(label_map.pixels[wrong].sum())
            detail = f'values {_first(values[wrong].tolist())} in {pixels} pixels'
            yield Problem('label-out-of-range', entry.label_map, detail=detail)
        if (meaning == IGNORED).all():
            detail = 'every pixel is ignored'
            yield Problem('image-without-labels', entry.label_map, detail=detail)
        pairs = zip(values.tolist(), meaning.tolist(), label_map.pixels.tolist(), strict=True)
        for value, label, pixels in pairs:
            if label >= 0:
                listing.counts[listing.classes[label]] += pixels
            elif label == IGNORED:
                listing.ignored[value] += pixels


def _first(values: list) -> str:
    more = ', ...' if len(values) > _LISTED_VALUES else ''
    return ', '.join(map(str, values[:_LISTED_VALUES])) + more


def _size(size: tuple[float, float]) -> str:
    return f'{size[0]:g}x{size[1]:g}'
