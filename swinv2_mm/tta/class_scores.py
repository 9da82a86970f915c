"""Merge classification over views: the mean of the scores."""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.structures import DataSample
from torch.nn import Module

from swinv2_mm.errors import UserError

from .views import LoadedImage, View


def mirror_back(sample: DataSample, mirroring: str) -> None:
    """Do nothing: class scores do not depend on mirroring."""


def merge(
    model: Module, views: Sequence[View], loaded: Sequence[LoadedImage], *, nms: dict | None
) -> list[DataSample]:
    """Average the scores over the views and update the predicted class.

    Raises:
        UserError: If the model scores no classes, or gives several labels to an image.
    """
    merged: list[DataSample] = []
    for view in views:
        samples = model.test_step(view.batch(loaded))
        if any('pred_score' not in s for s in samples):
            raise UserError(f'--tta: {type(model).__name__} predicts no class scores')
        if hasattr(model.head, 'thr'):  # mmpretrain's MultiLabelClsHead and its heirs
            raise UserError('--tta: predictions of several labels per image cannot be merged')
        if not merged:
            merged = samples
            scores = [s.pred_score for s in samples]
        else:
            scores = [total + s.pred_score for total, s in zip(scores, samples, strict=True)]
    for sample, total in zip(merged, scores, strict=True):
        mean = total / len(views)
        sample.set_pred_score(mean).set_pred_label(mean.argmax(dim=0, keepdim=True))
    return merged
