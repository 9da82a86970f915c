"""Whether the metrics of a run can score its data: found before the first step, not after it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from swinv2_mm.config.datasets import type_name
from swinv2_mm.datasets.files import shown
from swinv2_mm.errors import DataError, UserError

from .guarded import GuardedDataset

_ONE_LABEL = ('Accuracy', 'SingleLabelMetric', 'ConfusionMatrix')
_IOU_KINDS = frozenset({'mIoU', 'mDice', 'mFscore'})
_MOST_READ = 2000  # images of a data set that are asked for their number of labels
_REMEDY = (
    'join the annotation files to one that the data set and the metric both read, or give each a '
    "metric of its own: dict(type='MultiDatasetsEvaluator', metrics=[...], dataset_prefixes=[...])"
)


def check_scoring(
    loader: str,
    dataset: GuardedDataset,
    metrics: Sequence[Mapping[str, Any]],
    *,
    num_classes: int | None,
    is_by_part: bool = False,
) -> None:
    """Refuse metrics that would score other images than those that are predicted.

    Args:
        loader: ``val`` or ``test``.
        dataset: As built.
        metrics: Their settings, with the annotation files that are used.
        num_classes: Number of classes of the model, if known.
        is_by_part: Whether each of the data sets that are joined has a metric of its own.

    Raises:
        DataError: If images count twice, are not in a metric's file, or have several labels where
            the metric compares one.
        UserError: If a metric does not fit the number of classes, does not know what it is
            asked for, or there are not as many metrics as data sets.
    """
    num_listed = sum(map(len, dataset.innermost))
    if len(dataset) > num_listed:
        raise DataError(
            f'{loader} data set: it draws {len(dataset)} images of {num_listed}, and some count '
            f'several times: leave RepeatDataset or ClassBalancedDataset out of {loader}_dataloader'
        )
    parts = dataset.innermost if is_by_part else [dataset] * len(metrics)
    if len(parts) != len(metrics):
        raise UserError(
            f'{loader}_evaluator has {len(metrics)} metrics for {len(parts)} data sets: give each '
            'data set one'
        )
    if is_by_part and dataset.num_left_out:
        raise DataError(
            f'{loader} data set: {dataset.num_left_out} images cannot be used, and a metric per '
            'data set counts all: take them out of the annotation files'
        )
    for metric, part in zip(metrics, parts, strict=True):
        kind = type_name(metric)
        if kind == 'Accuracy':
            _check_top(loader, metric, num_classes=num_classes)
        if kind == 'IoUMetric' and (unknown := set(_listed(metric, 'iou_metrics')) - _IOU_KINDS):
            raise UserError(
                f'{loader}_evaluator.iou_metrics: unknown {min(map(str, unknown))!r} (known: '
                f'{", ".join(sorted(_IOU_KINDS))})'
            )
        if kind == 'ConfusionMatrix' and num_classes is not None:
            if metric.get('num_classes') not in (None, num_classes):
                raise UserError(
                    f'{loader}_evaluator.num_classes is {metric["num_classes"]}, and there are '
                    f'{num_classes} classes: leave it out'
                )
        if metric.get('output_dir'):
            _check_file_names(loader, part)
        if kind in _ONE_LABEL:
            _check_labels(loader, part, kind=kind)
        if kind.startswith('Coco'):
            _check_images(loader, part, metric.get('ann_file'))


def _listed(metric: Mapping[str, Any], name: str) -> list[Any]:
    value = metric.get(name, ())
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_top(loader: str, metric: Mapping[str, Any], *, num_classes: int | None) -> None:
    given = metric.get('topk', (1,))
    tops = list(given) if isinstance(given, (list, tuple)) else [given]
    if not tops or not all(type(top) is int and top > 0 for top in tops):
        raise UserError(
            f'{loader}_evaluator.topk is {given!r}: it takes numbers from 1 on, such as (1, 5)'
        )
    if num_classes is not None and max(tops) > num_classes:
        fit = ','.join(str(top) for top in tops if top <= num_classes) or '1'
        raise UserError(
            f'{loader}_evaluator.topk is {given}, and there are {num_classes} classes: set '
            f'{loader}_evaluator.topk=({fit},)'
        )


def _check_labels(loader: str, dataset: Any, *, kind: str) -> None:
    for index in range(min(len(dataset), _MOST_READ)):
        labels = dataset.get_data_info(index).get('gt_label')
        if isinstance(labels, (list, tuple)) and len(labels) != 1:
            path = dataset.get_data_info(index).get('img_path', '')
            raise DataError(
                f'{loader} data set: {shown(path)} has {len(labels)} labels, and {kind} compares '
                f'one per image: set {loader}_evaluator to MultiLabelMetric or AveragePrecision'
            )


def _check_images(loader: str, dataset: Any, file: str | None) -> None:
    predicted = [dataset.get_data_info(index).get('img_id') for index in range(len(dataset))]
    if repeated := _first_repeated(predicted):
        raise DataError(
            f'{loader} data set: two images have the id {repeated[0]!r}, and the metric tells them '
            f'by it; {_REMEDY}'
        )
    if file is None:
        return
    try:
        content = json.loads(Path(file).read_bytes())
        scored = {image['id'] for image in content['images']}
    except (OSError, ValueError, KeyError, TypeError):
        # What reads the whole file reports what is wrong with it.
        return
    if unknown := [one for one in predicted if one not in scored]:
        raise DataError(
            f'{loader} data set: {len(unknown)} of {len(predicted)} images, such as that with id '
            f'{unknown[0]!r}, are not in {shown(file)}, the file of {loader}_evaluator; {_REMEDY}'
        )
    if unpredicted := scored - set(predicted):
        # As with ``indices``, by which a user tests on a few images.
        print_log(
            f'{loader} data set: {len(unpredicted)} of the {len(scored)} images of {shown(file)}, '
            f'the file of {loader}_evaluator, are not in the data set and count as missed',
            logger='current',
            level=logging.WARNING,
        )


def _check_file_names(loader: str, dataset: Any) -> None:
    """Refuse images whose predictions mmseg would write to one file, named by its stem alone."""
    stems: dict[str, str] = {}
    for index in range(len(dataset)):
        path = str(dataset.get_data_info(index).get('img_path', ''))
        if (other := stems.setdefault(Path(path).stem.casefold(), path)) != path:
            raise DataError(
                f'{loader} data set: predictions for {shown(other)} and {shown(path)} would be '
                'written to one file: rename one of them'
            )


def _first_repeated(ids: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    for one in ids:
        if one is not None and one in seen:
            return [one]
        seen.add(one)
    return []
