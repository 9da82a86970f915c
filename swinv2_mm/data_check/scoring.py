"""Whether the metrics of a run can score its data: found before the first step, not after it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from swinv2_mm.datasets.files import shown
from swinv2_mm.errors import DataError, UserError

from .guarded import GuardedDataset

_ONE_LABEL = ('Accuracy', 'SingleLabelMetric', 'ConfusionMatrix')
_MOST_READ = 2000  # images of a data set that are asked for their number of labels
_REMEDY = (
    'join the annotation files to one that the data set and the metric both read, or test each by '
    'itself'
)


def check_scoring(
    loader: str,
    dataset: GuardedDataset,
    metrics: Sequence[Mapping[str, Any]],
    *,
    num_classes: int | None,
) -> None:
    """Refuse metrics that would score other images than those that are predicted.

    Args:
        loader: ``val`` or ``test``.
        dataset: As built.
        metrics: Their settings, with the annotation files that are used.
        num_classes: Of the model, if known.

    Raises:
        DataError: If images count twice, are not in a metric's file, or have several labels where
            the metric compares one.
        UserError: If a top-k is larger than the number of classes.
    """
    num_listed = sum(map(len, dataset.innermost))
    if len(dataset) > num_listed:
        raise DataError(
            f'{loader} data set: it draws {len(dataset)} images of {num_listed}, and some count '
            f'several times: leave RepeatDataset or ClassBalancedDataset out of {loader}_dataloader'
        )
    for metric in metrics:
        kind = str(metric.get('type')).rpartition('.')[2]
        if kind == 'Accuracy':
            _check_top(loader, metric, num_classes=num_classes)
        if kind in _ONE_LABEL:
            _check_labels(loader, dataset, kind=kind)
        if kind.startswith('Coco'):
            _check_images(loader, dataset, metric.get('ann_file'))


def _check_top(loader: str, metric: Mapping[str, Any], *, num_classes: int | None) -> None:
    given = metric.get('topk', (1,))
    tops = [given] if isinstance(given, int) else list(given)
    if num_classes is not None and tops and max(tops) > num_classes:
        fit = ','.join(str(top) for top in tops if top <= num_classes) or '1'
        raise UserError(
            f'{loader}_evaluator.topk is {given}, and there are {num_classes} classes: set '
            f'{loader}_evaluator.topk=({fit},)'
        )


def _check_labels(loader: str, dataset: GuardedDataset, *, kind: str) -> None:
    for index in range(min(len(dataset), _MOST_READ)):
        labels = dataset.get_data_info(index).get('gt_label')
        if isinstance(labels, (list, tuple)) and len(labels) != 1:
            path = dataset.get_data_info(index).get('img_path', '')
            raise DataError(
                f'{loader} data set: {shown(path)} has {len(labels)} labels, and {kind} compares '
                f'one per image: set {loader}_evaluator to MultiLabelMetric or AveragePrecision'
            )


def _check_images(loader: str, dataset: GuardedDataset, file: str | None) -> None:
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
        # Reported by whoever reads it whole.
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


def _first_repeated(ids: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    for one in ids:
        if one is not None and one in seen:
            return [one]
        seen.add(one)
    return []
