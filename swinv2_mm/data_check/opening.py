"""The images and label maps of a data set, opened and held against their annotations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .findings import Reporter
from .image_files import (
    FileFault,
    ImageLook,
    MapLook,
    in_threads,
    look_at_image,
    look_at_label_map,
)
from .label_maps import IGNORED, INVALID
from .listing import Entry, Listing

# A panoptic pixel that belongs to nothing.
_VOID = 0
_LISTED_VALUES = 5

Look = tuple[Entry, ImageLook | FileFault, MapLook | FileFault | None]


class Digests:
    """Remembers the hash of every image, to notice it again in this or another data set."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, Entry]] = {}

    def check(self, digest: bytes, entry: Entry, report: Reporter) -> None:
        """Report an image whose bytes were seen before; training sets must come first."""
        first = self._first.setdefault(digest, (report.data_set, entry))
        data_set, other = first
        if other is entry:
            return
        detail = f'same as {other.image}'
        is_trained = data_set.startswith('train') and not report.data_set.startswith('train')
        if is_trained:
            report('image-repeated-in-train', entry.image, id=entry.id, detail=detail)
        elif other.image == entry.image:
            # The same files listed by two data sets; within one, the lists themselves are checked.
            return
        elif other.label != entry.label:
            detail += f' ({other.label or "no label"} there, {entry.label or "no label"} here)'
            report('image-with-two-labels', entry.image, id=entry.id, detail=detail)
        else:
            report('image-repeated', entry.image, id=entry.id, detail=detail)


def open_images(
    listing: Listing,
    entries: list[Entry],
    report: Reporter,
    *,
    digests: Digests,
    workers: int,
    advance: Callable[[int], Any],
) -> None:
    """Open images and maps, report what is wrong, and count the pixels of label maps.

    Args:
        listing: Takes the pixel counts.
        entries: Those of the listing to open.
        report: Takes the faults.
        digests: Of the images seen so far.
        workers: Threads.
        advance: Called with the number of images done.
    """
    for entry, image, label_map in in_threads(_look, entries, workers=workers):
        if isinstance(image, FileFault):
            report(f'image-{image.kind}', entry.image, id=entry.id, detail=str(image))
        else:
            _check_image(entry, image, report)
            digests.check(image.digest, entry, report)
        if isinstance(label_map, FileFault):
            kind = f'label-map-{label_map.kind}'
            report(kind, entry.label_map, id=entry.id, detail=str(label_map))
        elif label_map is not None:
            _check_map(entry, image, label_map, listing, report)
        listing.num_opened += 1
        advance(1)


def _look(entry: Entry) -> Look:
    try:
        image: ImageLook | FileFault = look_at_image(entry.image)
    except FileFault as fault:
        image = fault
    label_map: MapLook | FileFault | None = None
    if entry.label_map is not None:
        try:
            label_map = look_at_label_map(entry.label_map, packs_ids=entry.segments is not None)
        except FileFault as fault:
            label_map = fault
    return entry, image, label_map


def _check_image(entry: Entry, image: ImageLook, report: Reporter) -> None:
    if image.is_deep:
        report('image-deep', entry.image, id=entry.id)
    sizes = f'the image is {_size(image.upright_px)}'
    if entry.size_px is not None and tuple(entry.size_px) != image.upright_px:
        detail = f'{sizes}, annotated {_size(entry.size_px)}'
        is_turned = tuple(entry.size_px) == image.stored_px
        kind = 'image-rotated-labels' if is_turned else 'image-size'
        report(kind, entry.image, id=entry.id, detail=detail)
    elif image.orientation != 1:
        detail = f'orientation {image.orientation}'
        report('image-rotated', entry.image, id=entry.id, detail=detail)


def _check_map(
    entry: Entry,
    image: ImageLook | FileFault,
    label_map: MapLook,
    listing: Listing,
    report: Reporter,
) -> None:
    if isinstance(image, ImageLook) and label_map.size_px != image.upright_px:
        detail = f'the map is {_size(label_map.size_px)}, the image {_size(image.upright_px)}'
        report('label-map-size', entry.label_map, id=entry.id, detail=detail)
    if entry.segments is not None:
        _check_segments(entry, label_map, report)
    elif listing.label_table is not None:
        _check_values(entry, label_map, listing, report)


def _check_segments(entry: Entry, label_map: MapLook, report: Reporter) -> None:
    shown = set(label_map.values.tolist()) - {_VOID}
    for kind, ids in (
        ('segment-missing', entry.segments - shown),
        ('segment-unlisted', shown - entry.segments),
    ):
        if ids:
            detail = f'segments {_first(sorted(ids))}'
            report(kind, entry.label_map, id=entry.id, detail=detail)


def _check_values(entry: Entry, label_map: MapLook, listing: Listing, report: Reporter) -> None:
    values = label_map.values
    in_byte = (values >= 0) & (values < len(listing.label_table))
    meaning = np.full(values.shape, INVALID)
    meaning[in_byte] = listing.label_table[values[in_byte]]
    if (meaning == INVALID).any():
        wrong = meaning == INVALID
        pixels = int(label_map.pixels[wrong].sum())
        detail = f'values {_first(values[wrong].tolist())} in {pixels} pixels'
        report('label-out-of-range', entry.label_map, detail=detail)
    if (meaning == IGNORED).all():
        report('image-without-labels', entry.label_map, detail='every pixel is ignored')
    for label, pixels in zip(meaning.tolist(), label_map.pixels.tolist(), strict=True):
        if label >= 0:
            listing.counts[listing.classes[label]] += pixels


def _first(values: list) -> str:
    more = ', ...' if len(values) > _LISTED_VALUES else ''
    return ', '.join(map(str, values[:_LISTED_VALUES])) + more


def _size(size: tuple[float, float]) -> str:
    return f'{size[0]:g}x{size[1]:g}'
