"""Refuse data sets that have another number of classes than the model learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from swinv2_mm.errors import DataError

from .class_names import check_heads
from .listing import Listing
from .sources import Source

# Kinds of data whose classes all heads of a model have; a classifier may have more.
_WITH_HEADS = {'instances', 'panoptic', 'label maps'}


def check_head_counts(
    cfg: Config, loader: str, metainfo: Mapping[str, Any], found: Sequence[Listing]
) -> None:
    """Refuse heads for another number of classes than the data has.

    Args:
        cfg: A whole config.
        loader: Whose data set it is.
        metainfo: The ``metainfo`` of the data set that was built.
        found: Its parts.

    Raises:
        DataError: If a head does not fit.
    """
    classes = metainfo.get('classes') or ()
    if not classes or {listing.source.kind for listing in found} - _WITH_HEADS:
        return
    things = metainfo.get('thing_classes')
    num_things = None if things is None else len(things)
    for problem in check_heads(cfg, config='', num_classes=len(classes), num_things=num_things):
        raise DataError(
            f'{loader} data set: {len(classes)} classes, and {problem.place} {problem.detail}'
        )


def check_labels_are_read(cfg: Config, source: Source) -> None:
    """Refuse to train a classifier on images without labels.

    Raises:
        DataError: If the data set does not read them.
    """
    kind = str((cfg.get('model') or {}).get('type'))
    is_labelled = source.settings.get('with_label', True)
    if source.name == 'train' and kind.endswith('ImageClassifier') and not is_labelled:
        raise DataError(
            'train data set: with_label=False, and a classifier learns from labels: leave it '
            'out, or give the data set an ann_file'
        )


def check_folder_count(listing: Listing) -> str:
    """Refuse class folders beyond the model's classes: they would stop the loss.

    Returns:
        A warning if there are fewer folders, else nothing.

    Raises:
        DataError: If there are more.
    """
    source, num_folders = listing.source, len(listing.classes)
    if source.num_classes is None or num_folders == source.num_classes:
        return ''
    count = (
        f'{source.name} data set: {num_folders} class folders, the model has '
        f'{source.num_classes} classes'
    )
    if num_folders > source.num_classes:
        raise DataError(f'{count} (model.head.num_classes)')
    if source.classes is not None and len(source.classes) >= source.num_classes:
        return ''
    return (
        f'{count}: the folders are numbered from 0 in the order of their names; '
        'metainfo.classes says which class is missing'
    )
