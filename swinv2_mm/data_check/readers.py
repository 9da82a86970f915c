"""Choose the reader of a data set by its kind, and validate the balance of its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .coco import read_coco
from .image_folders import read_image_folder
from .label_maps import read_label_maps
from .listing import Listing
from .problems import Problem
from .sources import Source

_RARE_RATE = 0.01


def read(
    source: Source,
    listing: Listing,
    *,
    is_thorough: bool,
    num_samples: int = 0,
    advance: Callable[[int], object] = lambda number: None,
) -> Iterator[Problem]:
    """Read a data set as far as that needs no image.

    Args:
        source: A data set of a known kind.
        listing: Is filled.
        is_thorough: Whether to look for warnings and notes too; without, only what training
            refuses is found for sure.
        num_samples: Images to draw.
        advance: Called with the number of annotations or images done.
    """
    if source.kind in ('instances', 'panoptic'):
        yield from read_coco(
            source, listing, is_thorough=is_thorough, num_samples=num_samples, advance=advance
        )
        return
    if source.kind == 'label maps':
        yield from read_label_maps(source, listing, num_samples=num_samples)
    else:
        yield from read_image_folder(
            source, listing, num_samples=num_samples, lists_images=is_thorough
        )
    advance(len(listing.entries))


def check_balance(listing: Listing, *, is_training: bool, file: str) -> Iterator[Problem]:
    """Look for classes without labels, and for those that others outweigh."""
    largest = max(listing.counts.values(), default=0)
    hint = ''
    if listing.ignored:
        ((value, pixels),) = listing.ignored.most_common(1)
        rate = pixels / (listing.counts.total() + listing.ignored.total())
        hint = f'; the value {value}, which is ignored, has {rate:.1%} of the pixels'
    for number, name in enumerate(listing.classes if largest or hint else ()):
        place = f'class {number}'
        if not listing.counts[name]:
            kind = 'class-never-seen' if is_training else 'class-not-tested'
            yield Problem(kind, file, place, name + hint)
        elif listing.counts[name] < _RARE_RATE * largest:
            yield Problem(
                'class-rare', file, place, f'{name}: {listing.counts[name]} {listing.unit}'
            )
