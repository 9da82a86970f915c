"""Summarise the data at the start of a run: images, labels per class, skipped files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from swinv2_mm.errors import DataError

from .guarded import GuardedDataset
from .listing import Entry, Listing, evenly
from .opening import count_pixels
from .readers import check_balance

# Label maps to read for the classes that they show, and names to list.
_NUM_MAPS = 200
_NUM_NAMES = 5
_MAX_READERS = 4


def start_line(loader: str, dataset: GuardedDataset, found: Sequence[Listing]) -> str:
    """Return one line with the counts of a data set.

    Args:
        loader: ``train``, ``val`` or ``test``.
        dataset: As built.
        found: What was read of the data sets in it.
    """
    num_used = sum(map(len, dataset.innermost)) - dataset.num_left_out
    num_listed = sum(len(listing.entries) for listing in found)
    labels: dict[str, int] = {}
    reasons: list[tuple[int, str]] = []
    for listing in found:
        small = _too_small(listing)
        if small:
            reasons.append(
                (len(small), f'min_size {listing.source.settings["filter_cfg"]["min_size"]}')
            )
        num_labels = sum(e.num_labels for e in listing.entries) - sum(e.num_labels for e in small)
        if num_labels:
            labels[listing.unit] = labels.get(listing.unit, 0) + num_labels
    rest = num_listed - num_used - sum(number for number, _ in reasons)
    if rest > 0:
        filters = [listing.source.settings.get('filter_cfg') or {} for listing in found]
        drops_empty = any(cfg.get('filter_empty_gt') for cfg in filters) and loader == 'train'
        reasons.append((rest, 'without instances' if drops_empty else 'unreadable or filtered'))
    of_all = f' of {num_listed}' if num_listed > num_used else ''
    plural = '' if max(num_used, num_listed) == 1 else 's'
    parts = [f'{num_used}{of_all} image{plural}', *(f'{n} {unit}' for unit, n in labels.items())]
    if classes := dataset.metainfo.get('classes'):
        parts.append(f'{len(classes)} class{"" if len(classes) == 1 else "es"}')
    left_out = ''.join(f'; {number} left out: {reason}' for number, reason in reasons)
    return f'{loader}: {", ".join(parts)}{left_out}'


def unseen_classes(listing: Listing) -> str:
    """Name the classes that no label map shows while other values are ignored; or nothing.

    Drawing programs save a mask of one object as 0 and 255, and 255 is ignored. Of many maps,
    some are read; then a rare class may be in the others, and only many unseen ones are named.

    Raises:
        DataError: If there is nothing to learn from.
    """
    chosen = evenly(listing.entries, _NUM_MAPS)
    count_pixels(listing, chosen, workers=min(_MAX_READERS, os.cpu_count() or 1))
    is_complete = len(chosen) == len(listing.entries)
    balance = check_balance(listing, is_training=True, file='')
    unseen = [problem.detail for problem in balance if problem.kind == 'class-never-seen']
    if not listing.ignored or not unseen:
        return ''
    if not is_complete and len(unseen) * 2 < len(listing.classes):
        return ''
    *names, last = unseen[:_NUM_NAMES]
    text = ', '.join([name.partition(';')[0] for name in names] + [last])
    where = f'in {len(chosen)} of {len(listing.entries)} label maps'
    if is_complete and not listing.counts:
        raise DataError(f'{listing.source.name} data set: no pixel of any class {where}: {text}')
    return f'{listing.source.name} data set: {len(unseen)} classes never seen {where}: {text}'


def _too_small(listing: Listing) -> list[Entry]:
    """List the images that mmdet leaves out for their size."""
    settings = listing.source.settings
    limit = (settings.get('filter_cfg') or {}).get('min_size', 0)
    if settings.get('test_mode') or not limit:
        return []
    return [e for e in listing.entries if e.size_px is not None and min(e.size_px) < limit]
