"""Predictions drawn on images by the visualizers of MMEngine's libraries."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS, DefaultScope

from .prediction import Prediction

# A shorter side than this has no room for the words of a classification.
_SMALLEST_SIDE_PX = 224
_numbers = itertools.count()


class Painter:
    """Draws what a model found.

    Args:
        cfg: A config whose ``visualizer`` names the class that draws.
        score_threshold: Detections below are not drawn.
        with_labels: Whether segments bear their names.
    """

    def __init__(
        self, cfg: Config, *, score_threshold: float = 0.3, with_labels: bool = True
    ) -> None:
        self.score_threshold = score_threshold
        self._with_labels = with_labels
        # Not those of a run: nothing is kept but the picture.
        settings = {k: v for k, v in dict(cfg.visualizer).items() if k != 'vis_backends'}
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            self._visualizer = VISUALIZERS.build({**settings, 'name': f'painter-{next(_numbers)}'})

    def draw(self, prediction: Prediction) -> np.ndarray:
        """Return a picture (H, W, 3), BGR; a small classified image is enlarged."""
        image = prediction.image[:, :, ::-1]
        classes, visualizer = prediction.classes, self._visualizer
        visualizer.dataset_meta = dict(classes=list(classes.names), palette=list(classes.palette))
        if prediction.task == 'classification':
            if min(image.shape[:2]) < _SMALLEST_SIDE_PX:
                factor = _SMALLEST_SIDE_PX / min(image.shape[:2])
                image = cv2.resize(image, None, fx=factor, fy=factor)
            visualizer.visualize_cls(image, prediction.sample, classes=classes.names, draw_gt=False)
        elif prediction.task == 'segmentation':
            visualizer.add_datasample(
                '', image, prediction.sample, draw_gt=False, with_labels=self._with_labels
            )
        else:
            visualizer.add_datasample(
                '', image, prediction.sample, draw_gt=False, pred_score_thr=self.score_threshold
            )
        return np.ascontiguousarray(visualizer.get_image()[:, :, ::-1])
