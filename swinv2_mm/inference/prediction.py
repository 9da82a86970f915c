"""Hold the prediction for one image in plain Python and NumPy types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .class_names import Classes

_NUM_BEST = 5


@dataclass
class Prediction:
    """The prediction for one image.

    Attributes:
        source: What was given: a path or an array.
        image: (H, W, 3), BGR, upright.
        sample: The library's data sample, on the CPU.
        task: ``detection``, ``segmentation`` or ``classification``.
        classes: Names and colours.
        is_truth: Whether it holds annotations instead: it has no scores to show.
    """

    source: Any
    image: np.ndarray
    sample: Any
    task: str
    classes: Classes
    is_truth: bool = False

    @property
    def label_map(self) -> np.ndarray | None:
        """Class numbers (H, W) of a segmentation."""
        if self.task != 'segmentation':
            return None
        return self.sample.pred_sem_seg.data[0].numpy().astype(label_type(self.classes))

    def to_dict(self, *, score_threshold: float = 0.0) -> dict:
        """Convert the prediction to what JSON can hold.

        - detection: ``detections``, sorted by score, each with ``class``, ``label``, ``score``,
          ``bbox`` (left, top, width, height in pixels) and perhaps ``segmentation`` (COCO's run
          lengths) and ``track_id`` (of a video);
        - segmentation: ``shares``, of the pixels, by class name, the largest first;
        - classification: ``best``, up to five classes, each with ``class``, ``label``, ``score``.

        Args:
            score_threshold: Detections with a lower score are left out.
        """
        height, width = self.image.shape[:2]
        size = {'width': width, 'height': height}
        if self.task == 'detection':
            return {**size, 'detections': list(self._detections(score_threshold))}
        if self.task == 'segmentation':
            counts = np.bincount(self.label_map.ravel(), minlength=len(self.classes.names))
            return {**size, 'shares': class_shares(counts, self.classes)}
        scores = self.sample.pred_score.float()
        best = scores.topk(min(_NUM_BEST, len(scores)))
        return {
            **size,
            'best': [
                {'class': self.classes.names[label], 'label': label, 'score': round(score, 5)}
                for score, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ],
        }

    def _detections(self, score_threshold: float) -> Iterator[dict]:
        from mmdet.structures.mask import encode_mask_results

        found = self.sample.pred_instances
        found = found[found.scores >= score_threshold]
        found = found[found.scores.argsort(descending=True, stable=True)]
        masks = encode_mask_results(found.masks.numpy()) if 'masks' in found else None
        rows = zip(found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        tracks = found.track_ids.tolist() if 'track_ids' in found else None
        for i, (box, score, label) in enumerate(rows):
            mask = None if masks is None else masks[i]
            record = detection_record(box, score, label, classes=self.classes, mask=mask)
            yield record if tracks is None or tracks[i] < 0 else {**record, 'track_id': tracks[i]}


def label_type(classes: Classes) -> type[np.integer]:
    """Return the type of a label map: bytes, as far as they count."""
    return np.uint8 if len(classes.names) <= 256 else np.uint16


def class_shares(counts: np.ndarray, classes: Classes) -> dict[str, float]:
    """Return the share of each class in the pixels of a label map by name, the largest first."""
    order = [label for label in np.argsort(-counts, kind='stable').tolist() if counts[label]]
    total = int(counts.sum())
    return {classes.name(label): round(int(counts[label]) / total, 5) for label in order}


def detection_record(
    box: Sequence[float], score: float, label: int, *, classes: Classes, mask: dict | None
) -> dict:
    """Return a detection as JSON can hold it.

    Args:
        box: Left, top, right, bottom in pixels.
        score: Score of the detection.
        label: Number of its class.
        classes: Names.
        mask: COCO's compressed RLE, its counts as bytes.
    """
    left, top, right, bottom = box
    record = {
        'class': classes.name(label),
        'label': label,
        'score': round(score, 5),
        'bbox': [round(v, 2) for v in (left, top, right - left, bottom - top)],
    }
    if mask is not None:
        record['segmentation'] = {**mask, 'counts': mask['counts'].decode()}
    return record
