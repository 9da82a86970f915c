"""Evaluate a classifier for the report: scores per class, confusion, examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve

from swinv2_mm.errors import DataError

from .calibration import Reliability
from .findings import PREDICTION, TRUTH, Example, Findings, Side

_TOP = 5


class ClassificationTask:
    """Collect the predictions of a classifier.

    Args:
        classes: Names.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self._scores: list[np.ndarray] = []
        self._labels: list[int] = []
        self._examples: list[Example] = []

    def add(self, info: dict, sample: object) -> None:
        """Add the prediction for one image.

        Raises:
            DataError: If it has several labels, or none.
        """
        scores = sample.pred_score.float().cpu().numpy()
        if len(sample.gt_label) != 1:
            raise DataError(
                f'{info["img_path"]} has {len(sample.gt_label)} labels: the report is of '
                'classifiers with one label per image'
            )
        label, best = int(sample.gt_label[0]), int(scores.argmax())
        self._scores.append(scores)
        self._labels.append(label)
        words = f'{self.classes[best]} ({scores[best]:.2f})'
        height, width = sample.ori_shape[:2] if 'ori_shape' in sample else (0, 0)
        self._examples.append(
            Example(
                info['img_path'], (height, width), float(scores[label]), {label, best},
                {TRUTH: Side(words=self.classes[label]), PREDICTION: Side(words=words)},
            )
        )  # fmt: skip

    def findings(self) -> Findings:
        """Compute the findings."""
        scores, labels = np.stack(self._scores), np.array(self._labels)
        number = len(self.classes)
        best = scores.argmax(1)
        matrix = confusion_matrix(labels, best, labels=range(number))
        right, truths, guesses = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        with np.errstate(invalid='ignore', divide='ignore'):
            recall, precision = right / truths, right / guesses
        rows, curves = [], {}
        for label in range(number):
            average = np.nan
            if truths[label]:
                is_label = labels == label
                average = average_precision_score(is_label, scores[:, label])
                points = precision_recall_curve(is_label, scores[:, label])
                curves[label] = points[1], points[0]
            rows.append((truths[label], 100 * precision[label], 100 * recall[label], 100 * average))
        top = np.argsort(-scores, axis=1)[:, :_TOP]
        metrics = {'top-1': f'{100 * (best == labels).mean():.2f} %'}
        if number > _TOP:
            metrics['top-5'] = f'{100 * (top == labels[:, None]).any(1).mean():.2f} %'
        reliability = Reliability.of(scores.max(1), best == labels)
        metrics['calibration error'] = f'{100 * reliability.error:.1f} %'
        return Findings(
            metrics=metrics,
            columns=('images', 'precision %', 'recall %', 'AP %'),
            main_column='recall %',
            rows=rows,
            curves={'one class against the others': curves},
            confusion=matrix,
            confusion_names=self.classes,
            score_name='probability of the true class',
            examples=self._examples,
            reliability=reliability,
        )
