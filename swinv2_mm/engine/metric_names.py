"""List the metric names of an evaluator before it runs, and complete those of no predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from swinv2_mm.config.datasets import metrics_of, type_name

# What CocoMetric(classwise=True) appends to the name of a class.
OF_ONE_CLASS = '_precision'
_AP_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_IOU_NAMES = {
    'mIoU': ('aAcc', 'mIoU', 'mAcc'),
    'mDice': ('aAcc', 'mDice', 'mAcc'),
    'mFscore': ('aAcc', 'mFscore', 'mPrecision', 'mRecall'),
}


def metric_names(evaluator: Any) -> list[str] | None:
    """Return the names of all metrics of an evaluator, or ``None`` if some are not known.

    Args:
        evaluator: The settings of a metric, a list of them, or an evaluator of several data sets.
    """
    known: list[str] = []
    for part, metric in _metrics_by_part(evaluator):
        names = _names_of(metric)
        if names is None:
            return None
        known += [part + name for name in names]
    return known or None


def _metrics_by_part(evaluator: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """List the metrics, each with how its names begin: by the data set, if each has a metric."""
    metrics = metrics_of(evaluator)
    parts = evaluator.get('dataset_prefixes') if isinstance(evaluator, Mapping) else None
    if parts is None:
        return [('', metric) for metric in metrics]
    return [(f'{part}/', metric) for part, metric in zip(parts, metrics, strict=False)]


def _names_of(metric: Mapping[str, Any]) -> list[str] | None:
    kind = type_name(metric)
    if kind == 'PredictionFile':
        return []
    if kind == 'CocoMetric':
        if not {'bbox', 'segm'}.issuperset(_coco_kinds(metric)):
            return None
        return _coco_names(metric)
    if kind == 'IoUMetric':
        kinds = metric.get('iou_metrics', ['mIoU'])
        names, prefix = [name for kind in kinds for name in _IOU_NAMES.get(kind, ())], ''
    elif kind == 'Accuracy' and not metric.get('thrs'):
        topk = metric.get('topk', (1,))
        names = [f'top{k}' for k in ([topk] if isinstance(topk, int) else topk)]
        prefix = 'accuracy'
    else:
        return None
    prefix = metric.get('prefix') or prefix
    return [f'{prefix}/{name}' if prefix else name for name in names]


def _coco_kinds(metric: Mapping[str, Any]) -> Sequence[str]:
    kinds = metric.get('metric', 'bbox')
    return [kinds] if isinstance(kinds, str) else kinds


def _coco_names(metric: Mapping[str, Any]) -> list[str]:
    prefix = metric.get('prefix') or 'coco'
    kinds = [kind for kind in _coco_kinds(metric) if kind in ('bbox', 'segm')]
    items = metric.get('metric_items') or _AP_ITEMS
    return [f'{prefix}/{kind}_{item}' for kind in kinds for item in items]


class EmptyDetectionHook(Hook):
    """Give an AP of 0 to a detector that finds nothing: ``CocoMetric`` leaves its scores out."""

    # Before the hooks that log the metrics and choose the best checkpoint.
    priority = 'VERY_HIGH'

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        self._evaluators = {part: cfg.get(f'{part}_evaluator') for part in ('val', 'test')}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Complete the metrics of a validation."""
        self._complete('val', metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Complete the metrics of a test."""
        self._complete('test', metrics)

    def _complete(self, part: str, metrics: dict[str, float] | None) -> None:
        for start, metric in _metrics_by_part(self._evaluators[part]):
            if metrics is None or metric.get('format_only'):
                continue
            if type_name(metric) == 'CocoMetric':
                for name in _coco_names(metric):
                    metrics.setdefault(start + name, 0.0)
