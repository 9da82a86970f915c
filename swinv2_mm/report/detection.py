"""Evaluate a detector, boxes and instance masks, for the report."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .calibration import Reliability
from .findings import PREDICTION, TRUTH, Example, Findings, Shape, Side

# Predictions below this score are neither drawn nor matched; AP counts all of them.
LEAST_SCORE = 0.3
_MATCH_IOU = 0.5
_PLURALS = {'bbox': 'boxes', 'segm': 'masks'}
_MOST_DRAWN = 100
# How far an outline may be from its mask: in pixels, and of large images as a part of a side.
_OUTLINE_PX = 0.8
_OUTLINE_STEPS = 600


class DetectionTask:
    """Collect the predictions of a detector.

    Args:
        classes: Names.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self._images: list[dict] = []
        self._truths: list[dict] = []
        self._guesses: list[dict] = []
        self._has_masks = False
        number = len(classes) + 1  # the last: no object
        self._confusion = np.zeros((number, number), np.int64)
        self._examples: list[Example] = []

    def add(self, info: dict, sample: object) -> None:
        """Add the predictions for one image."""
        image_id = len(self._images) + 1
        height, width = sample.ori_shape
        self._images.append({'id': image_id, 'height': height, 'width': width})
        first = len(self._truths)
        truth = [
            {'id': number, 'image_id': image_id, **_truth(instance, (height, width))}
            for number, instance in enumerate(info['instances'], start=first + 1)
        ]
        found = sample.pred_instances.cpu().numpy()
        has_masks = 'masks' in found
        self._has_masks |= has_masks
        guesses = []
        for at in np.argsort(-found.scores):
            left, top, right, bottom = map(float, found.bboxes[at])
            guess = {
                'image_id': image_id,
                'category_id': int(found.labels[at]) + 1,
                'bbox': [left, top, right - left, bottom - top],
                'score': float(found.scores[at]),
            }
            if has_masks:
                mask = np.asfortranarray(found.masks[at].astype(np.uint8))
                guess['segmentation'] = coco_mask.encode(mask)
            guesses.append(guess)
        self._truths += truth
        self._guesses += guesses
        shown = [guess for guess in guesses if guess['score'] >= LEAST_SCORE]
        score, missed = self._match([t for t in truth if not t['iscrowd']], shown)
        names = Counter(self.classes[entry['category_id'] - 1] for entry in missed)
        lost = {entry['id'] for entry in missed}
        labels = {entry['category_id'] - 1 for entry in (*truth, *shown)}
        self._examples.append(
            Example(
                info['img_path'], (height, width), score, labels,
                {
                    TRUTH: Side([_shape(t, is_missed=t['id'] in lost) for t in truth]),
                    PREDICTION: Side([_shape(guess) for guess in shown[:_MOST_DRAWN]]),
                },
                missed=', '.join(f'{count} {name}' for name, count in names.most_common()),
            )
        )  # fmt: skip

    def _match(self, truth: list[dict], guesses: list[dict]) -> tuple[float, list[dict]]:
        """Count confusions: each prediction takes the best object that is free.

        Returns:
            F1, and the objects that no prediction has found.
        """
        background = len(self.classes)
        free = set(range(len(truth)))
        overlap = np.zeros((len(guesses), len(truth)))
        if truth and guesses:
            boxes = [[entry['bbox'] for entry in entries] for entries in (guesses, truth)]
            overlap = coco_mask.iou(
                *(np.array(b, dtype=np.float64) for b in boxes), [0] * len(truth)
            )
        right = 0
        for guess, row in zip(guesses, overlap, strict=True):
            label = guess['category_id'] - 1
            fits = [at for at in free if row[at] >= _MATCH_IOU]
            best = max(
                fits, key=lambda at: (truth[at]['category_id'] - 1 == label, row[at]), default=None
            )
            actual = background if best is None else truth[best]['category_id'] - 1
            self._confusion[actual, label] += 1
            right += actual == label
            free.discard(best)
        for at in free:
            self._confusion[truth[at]['category_id'] - 1, background] += 1
        total = len(truth) + len(guesses)
        return 2 * right / total if total else 1.0, [truth[at] for at in sorted(free)]

    def findings(self) -> Findings:
        """Compute the findings with pycocotools."""
        counts = np.bincount(
            [t['category_id'] - 1 for t in self._truths if not t['iscrowd']],
            minlength=len(self.classes),
        )
        kinds = ['bbox']
        if self._has_masks and all('segmentation' in truth for truth in self._truths):
            kinds.append('segm')
        metrics, columns, values, curves = {}, ['objects'], [counts], {}
        for kind in kinds:
            name = {'bbox': 'box', 'segm': 'mask'}[kind]
            precision, scores, reliability = self._precision(kind)
            for title, part in (('AP', slice(None)), ('AP50', slice(0, 1))):
                by_class = np.array([_mean(precision[part, :, k]) for k in range(len(counts))])
                columns.append(f'{name} {title} %')
                values.append(100 * by_class)
                mean = f'{100 * np.nanmean(by_class):.1f} %' if counts.any() else 'no objects'
                metrics[f'{name} {title}'] = mean
            recall = np.linspace(0, 1, precision.shape[1])
            found = {k: (recall, precision[0, :, k]) for k in map(int, np.flatnonzero(counts))}
            if found:
                curves[f'{_PLURALS[kind]} at IoU {_MATCH_IOU:g}'] = found
            # Masks are scored where there are any: they are what such a model is for.
            best = [
                _best_score(recall, precision[0, :, k], scores[0, :, k]) if k in found else np.nan
                for k in range(len(counts))
            ]
        columns.append('best score %')
        values.append(100 * np.array(best))
        return Findings(
            metrics=metrics,
            columns=columns,
            main_column=f'{"mask" if len(kinds) > 1 else "box"} AP %',
            rows=list(zip(*values, strict=True)),
            curves=curves,
            confusion=self._confusion,
            confusion_names=[*self.classes, '(none)'],
            score_name=f'F1 of boxes with IoU {_MATCH_IOU:g} and score {LEAST_SCORE:g}',
            examples=self._examples,
            reliability=reliability,
            has_boxes=True,
            has_masks=len(kinds) > 1,
        )

    def _precision(self, kind: str) -> tuple[np.ndarray, np.ndarray, Reliability | None]:
        """Return precision and score by IoU threshold, recall and class, and how right scores are.

        The precision is -1 where there are no objects.
        """
        categories = [{'id': k + 1, 'name': name} for k, name in enumerate(self.classes)]
        if not self._guesses:
            nothing = np.zeros((10, 101, len(categories)))
            return nothing, nothing, None
        # It reports to stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                'info': {}, 'images': self._images, 'annotations': self._truths,
                'categories': categories,
            }  # fmt: skip
            truth.createIndex()
            guesses = [dict(guess) for guess in self._guesses]
            if kind == 'bbox':
                for guess in guesses:
                    guess.pop('segmentation', None)
            else:
                # Their area is the mask's, not the box's.
                for guess in guesses:
                    guess.pop('bbox')
            evaluation = COCOeval(truth, truth.loadRes(guesses), kind)
            evaluation.evaluate()
            evaluation.accumulate()
        # Objects of any size, at most 100 per image.
        found = evaluation.eval
        precision, scores = (found[name][:, :, :, 0, -1] for name in ('precision', 'scores'))
        return precision, scores, _reliability(evaluation)


def _reliability(evaluation: COCOeval) -> Reliability:
    """Count at the lowest IoU threshold how many predictions are right, by their scores."""
    whole = evaluation.params.areaRng[0]
    parts = [part for part in evaluation.evalImgs if part and part['aRng'] == whole]
    counted = [~part['dtIgnore'][0].astype(bool) for part in parts]
    scores = [np.array(part['dtScores'])[c] for part, c in zip(parts, counted, strict=True)]
    right = [part['dtMatches'][0][c] > 0 for part, c in zip(parts, counted, strict=True)]
    return Reliability.of(np.concatenate(scores), np.concatenate(right))


def _best_score(recall: np.ndarray, precision: np.ndarray, scores: np.ndarray) -> float:
    """Return the score from which on predictions have the highest F1; NaN if none is right."""
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-9)
    return float(scores[f1.argmax()]) if f1.max() > 0 else float('nan')


def _truth(instance: dict, size: tuple[int, int]) -> dict:
    left, top, right, bottom = map(float, instance['bbox'])
    truth = {
        'category_id': int(instance['bbox_label']) + 1,
        'bbox': [left, top, right - left, bottom - top],
        'area': (right - left) * (bottom - top),
        'iscrowd': int(instance.get('ignore_flag', 0)),
    }
    if instance.get('mask'):
        truth['segmentation'] = _encoded(instance['mask'], size)
        truth['area'] = float(coco_mask.area(truth['segmentation']))
    return truth


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float('nan')


def _encoded(mask: dict | list, size: tuple[int, int]) -> dict:
    """Return a mask of a data set, polygons or runs, as compressed runs."""
    if isinstance(mask, list):
        return coco_mask.merge(coco_mask.frPyObjects(mask, *size))
    if isinstance(mask['counts'], list):
        return coco_mask.frPyObjects(mask, *size)
    return mask


def _shape(entry: dict, *, is_missed: bool = False) -> Shape:
    left, top, width, height = entry['bbox']
    outline = _outline(entry['segmentation']) if 'segmentation' in entry else ''
    box = (left, top, left + width, top + height)
    return Shape(entry['category_id'] - 1, box, outline, entry.get('score', 1.0), is_missed)


def _outline(runs: dict) -> str:
    """Trace a mask as an SVG path."""
    mask = coco_mask.decode(runs)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = max(_OUTLINE_PX, max(mask.shape) / _OUTLINE_STEPS)
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, tolerance, True)[:, 0]
        if len(points) > 2:
            parts.append('M' + 'L'.join(f'{x},{y}' for x, y in points) + 'Z')
    return ''.join(parts)
