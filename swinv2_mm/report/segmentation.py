"""Evaluate a segmentor for the report: IoU per class, confusion, error maps."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from swinv2_mm.datasets.palette import Colour, class_colours

from .calibration import Reliability
from .findings import ERRORS, PREDICTION, TRUTH, Example, Findings, Side

_IGNORED = 255
_ALPHA = 150
_LONGER_SIDE_PX = 480
# Transparent where a pixel is right or ignored.
_ERROR_LUT = np.array([(0, 0, 0, 0), (213, 0, 50, 220)], np.uint8)
# Thresholds of the precision-recall curves, and pixels of an image that they count.
_NUM_LEVELS = 256
_MOST_PIXELS = 1 << 16


class SegmentationTask:
    """Collect the predictions of a segmentor.

    Args:
        classes: Names.
        palette: A colour per class; ``None`` chooses.
    """

    def __init__(self, classes: Sequence[str], *, palette: Sequence[Colour] | None = None) -> None:
        self.classes = classes
        # One more, of pixels that count as no class.
        lut = np.zeros((256, 4), np.uint8)
        number = min(len(classes), _IGNORED)
        lut[:number, :3] = class_colours(number, palette=palette)
        lut[:number, 3] = _ALPHA
        self._lut = lut
        self._confusion = np.zeros((len(classes), len(classes)), np.int64)
        self._examples: list[Example] = []
        # Pixels by class, whether they are of it, and the class's probability there.
        self._levels = np.zeros((len(classes), 2, _NUM_LEVELS), np.int64)
        self._reliability = Reliability.of(np.zeros(0), np.zeros(0))

    def add(self, info: dict, sample: object) -> None:
        """Add the prediction for one image."""
        truth = sample.gt_sem_seg.data[0].cpu().numpy().astype(np.int64)
        guess = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)
        number = len(self.classes)
        valid = (truth != _IGNORED) & (truth < number)
        pairs = number * truth[valid] + guess[valid]
        matrix = np.bincount(pairs, minlength=number**2).reshape(number, number)
        self._confusion += matrix
        if 'seg_logits' in sample and sample.seg_logits.data.shape[0] == number:
            self._count_levels(sample.seg_logits.data, truth, valid)
        iou = _iou(matrix)
        present = matrix.sum(1) > 0
        self._examples.append(
            Example(
                info['img_path'],
                truth.shape,
                float(iou[present].mean()) if present.any() else 1.0,
                {int(label) for label in np.flatnonzero(matrix.sum(0) + matrix.sum(1))},
                {
                    TRUTH: Side(label_map=_png(self._lut[np.clip(truth, 0, _IGNORED)])),
                    PREDICTION: Side(label_map=_png(self._lut[np.clip(guess, 0, _IGNORED)])),
                    ERRORS: Side(label_map=_png(_ERROR_LUT[(valid & (truth != guess)) + 0])),
                },
            )
        )

    def _count_levels(self, logits: Tensor, truth: np.ndarray, valid: np.ndarray) -> None:
        pixels = np.flatnonzero(valid)
        pixels = pixels[:: max(1, -(-len(pixels) // _MOST_PIXELS))]
        scores = logits.flatten(1)[:, torch.from_numpy(pixels).to(logits.device)].float()
        scores = scores.softmax(0)
        levels = (scores * (_NUM_LEVELS - 1)).round().long().cpu().numpy()
        truth = truth.ravel()[pixels]
        best, labels = (values.cpu().numpy() for values in scores.max(0))
        self._reliability += Reliability.of(best, labels == truth)
        for label, (counts, level) in enumerate(zip(self._levels, levels, strict=True)):
            flat = _NUM_LEVELS * (truth == label) + level
            counts += np.bincount(flat, minlength=2 * _NUM_LEVELS).reshape(2, _NUM_LEVELS)

    def _curves(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Recall and precision of each class while its threshold falls."""
        curves = {}
        for label, counts in enumerate(self._levels):
            wrong, right = counts[:, ::-1].cumsum(1)
            if right[-1]:
                found = right + wrong > 0
                curves[label] = (right / right[-1])[found], (right / (right + wrong).clip(1))[found]
        return curves

    def findings(self) -> Findings:
        """Compute the findings."""
        matrix, curves = self._confusion, self._curves()
        with np.errstate(invalid='ignore', divide='ignore'):
            recall = matrix.diagonal() / matrix.sum(1)
            precision = matrix.diagonal() / matrix.sum(0)
        iou, share = _iou(matrix), matrix.sum(1) / max(matrix.sum(), 1)
        return Findings(
            metrics={
                'mIoU': f'{100 * np.nanmean(iou):.2f} %',
                'mean accuracy': f'{100 * np.nanmean(recall):.2f} %',
                'pixel accuracy': f'{100 * matrix.trace() / max(matrix.sum(), 1):.2f} %',
            },
            columns=('pixels %', 'IoU %', 'precision %', 'recall %'),
            main_column='IoU %',
            rows=[tuple(row) for row in 100 * np.stack((share, iou, precision, recall), 1)],
            curves={'pixels': curves} if curves else {},
            confusion=matrix,
            confusion_names=self.classes,
            score_name='mean IoU of the classes in the picture',
            examples=self._examples,
            reliability=self._reliability if curves else None,
            has_masks=True,
        )


def _png(colours: np.ndarray) -> bytes:
    image = Image.fromarray(colours, 'RGBA')
    image.thumbnail((_LONGER_SIDE_PX, _LONGER_SIDE_PX), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.quantize(256).save(stream, 'PNG', optimize=True)
    return stream.getvalue()


def _iou(matrix: np.ndarray) -> np.ndarray:
    both = matrix.diagonal()
    with np.errstate(invalid='ignore', divide='ignore'):
        return both / (matrix.sum(0) + matrix.sum(1) - both)
