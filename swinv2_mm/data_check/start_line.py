"""Summarise the data at the start of a run: images, labels per class, skipped files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from swinv2_mm.datasets.files import shown
from swinv2_mm.errors import DataError

from .catalogue import CATALOGUE
from .guarded import GuardedDataset
from .image_folders import count_passed_over
from .listing import Entry, Listing, evenly
from .loading import LoadCheckedAnnotations
from .opening import count_pixels
from .readers import check_balance

# Label maps to read for the classes that they show, and names to list.
_NUM_MAPS = 200
_NUM_NAMES = 5
_MAX_READERS = 4
# A data set of at most so many images is read once more for its counts: two seconds.
MOST_IMAGES = 20_000


def start_line(loader: str, dataset: GuardedDataset, found: Sequence[Listing]) -> str:
    """Return one line with the counts of a data set.

    Args:
        loader: ``train``, ``val`` or ``test``.
        dataset: As built.
        found: What was read of the data sets in it; one of a type that is not known is not there.
    """
    num_inside = sum(map(len, dataset.innermost))
    num_used = num_inside - dataset.num_left_out
    counts = _labels_by_class(dataset)
    labels = _labels_by_unit(found)
    if not found and counts:
        labels = {'labels': counts.total()}
    reasons = _reasons(loader, found, num_used=num_used)
    num_listed = num_used + sum(number for number, _ in reasons)
    of_all = f' of {num_listed}' if num_listed > num_used else ''
    plural = '' if max(num_used, num_listed) == 1 else 's'
    parts = [f'{num_used}{of_all} image{plural}', *(f'{n} {unit}' for unit, n in labels.items())]
    if len(dataset) > num_inside:
        parts.insert(1, f'drawn as {len(dataset)}')
    if classes := dataset.metainfo.get('classes'):
        parts.append(f'{len(classes)} class{"" if len(classes) == 1 else "es"}')
    clauses = [f'{number} left out: {reason}' for number, reason in reasons]
    if number := sum(listing.num_not_learnt for listing in found):
        clauses.append(f'{number} instances left out: crowds, or smaller than a pixel')
    if names := list(dict.fromkeys(name for listing in found for name in listing.left_out)):
        clauses.append(f'{len(names)} categories of the file left out: {_listed(names)}')
    unseen = [name for label, name in enumerate(classes or ()) if counts and not counts[label]]
    if unseen:
        clauses.append(f'{len(unseen)} without labels: {_listed(unseen)}')
    return '; '.join([f'{loader}: {", ".join(parts)}', *clauses])


def _labels_by_unit(found: Sequence[Listing]) -> dict[str, int]:
    """Count what the data sets are labelled with, such as instances."""
    labels: dict[str, int] = {}
    for listing in found:
        number = sum(e.num_labels for e in listing.entries)
        number -= sum(e.num_labels for e in _too_small(listing))
        if number:
            labels[listing.unit] = labels.get(listing.unit, 0) + number
    return labels


def _reasons(loader: str, found: Sequence[Listing], *, num_used: int) -> list[tuple[int, str]]:
    """List why images are left out, each with their number."""
    reasons: list[tuple[int, str]] = []
    other: Counter[str] = Counter()
    num_small = 0
    for listing in found:
        if small := _too_small(listing):
            limit = listing.source.settings['filter_cfg']['min_size']
            reasons.append((len(small), f'min_size {limit}'))
            num_small += len(small)
        if listing.source.has_class_folders and not listing.entries and num_used <= MOST_IMAGES:
            count_passed_over(listing)
        other += listing.other_suffixes
        if listing.num_outside:
            reasons.append((listing.num_outside, 'beside the class folders'))
    num_listed = sum(len(listing.entries) for listing in found)
    rest = num_listed - num_used - num_small
    if rest > 0:
        filters = [listing.source.settings.get('filter_cfg') or {} for listing in found]
        drops_empty = any(cfg.get('filter_empty_gt') for cfg in filters) and loader == 'train'
        reasons.append((rest, 'without instances' if drops_empty else 'unreadable or filtered'))
    if other:
        reasons.append((other.total(), f'suffix {_listed(list(other))}'))
    return reasons


def _labels_by_class(dataset: GuardedDataset) -> Counter[int]:
    """Count the labels of each class, of a data set that is not too large for that."""
    counts: Counter[int] = Counter()
    if len(dataset) > MOST_IMAGES or not hasattr(dataset.dataset, 'get_data_info'):
        return counts
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for entry in info.get('segments_info') or info.get('instances') or ():
            if not entry.get('ignore_flag'):
                counts[entry.get('category', entry.get('bbox_label'))] += 1
        labels = info.get('gt_label')
        if isinstance(labels, (int, list, tuple, np.ndarray, np.integer)):
            counts.update(np.atleast_1d(labels).tolist())
    return counts


def _listed(names: Sequence[str]) -> str:
    text = ', '.join(map(repr, names[:_NUM_NAMES]))
    return f'{text}, ...' if len(names) > _NUM_NAMES else text


def unseen_classes(listing: Listing) -> str:
    """Name the classes that no label map shows, or return nothing.

    Drawing programs save a mask of one object as 0 and 255, and 255 is ignored. Where there are
    many maps only some are read: a rare class may be in the others, so only many unseen classes
    are named. A set to score by may lack a class: there it is named only where something is
    ignored.

    Raises:
        DataError: If there is nothing to learn from, or a map is invalid that no step of the
            pipeline would refuse.
    """
    is_training = listing.source.name.startswith('train')
    chosen = evenly(listing.entries, _NUM_MAPS)
    problems = count_pixels(listing, chosen, workers=min(_MAX_READERS, os.cpu_count() or 1))
    refused = [problem for problem in problems if problem.is_refused]
    if refused and LoadCheckedAnnotations.__name__ not in str(listing.source.settings):
        file, kind = shown(refused[0].file), CATALOGUE[refused[0].kind]
        raise DataError(
            f'{listing.source.name} data set: {len(refused)} of {len(chosen)} label maps are '
            f'invalid, such as {file}: {refused[0].reason}. Fix: {kind.remedy}'
        )
    is_complete = len(chosen) == len(listing.entries)
    balance = check_balance(listing, is_training=True, file='')
    unseen = [problem.detail for problem in balance if problem.kind == 'class-never-seen']
    if not unseen or refused or not (is_training or listing.ignored):
        return ''
    if not is_complete and len(unseen) * 2 < len(listing.classes):
        return ''
    *names, last = unseen[:_NUM_NAMES]
    text = ', '.join([name.partition(';')[0] for name in names] + [last])
    where = f'in {len(chosen)} of {len(listing.entries)} label maps'
    if is_training and is_complete and not listing.counts:
        raise DataError(f'{listing.source.name} data set: no pixel of any class {where}: {text}')
    return f'{listing.source.name} data set: {len(unseen)} classes never seen {where}: {text}'


def _too_small(listing: Listing) -> list[Entry]:
    """List the images that mmdet leaves out for their size."""
    settings = listing.source.settings
    limit = (settings.get('filter_cfg') or {}).get('min_size', 0)
    if settings.get('test_mode') or not limit:
        return []
    return [e for e in listing.entries if e.size_px is not None and min(e.size_px) < limit]
