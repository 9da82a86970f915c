"""Merge Mask R-CNN, Cascade Mask R-CNN and HTC over views, inside their two stages.

Every view contributes the candidates that its second stage makes, before any suppression; one
suppression, the model's own, chooses among all of them. (Suppressing twice would lower the scores
of soft-NMS twice.) The mask head then judges the chosen boxes on every view, and the mean of its
probabilities is the mask: so do Detectron2 and the multi-scale test of mmdet 2.

The second pass computes the features of each view again: twice the time of the backbone, but the
features of one view only in memory, whatever the number of views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, HybridTaskCascadeRoIHead, StandardRoIHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_flip, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import Module

from swinv2_mm.config.entries import FLIPS
from swinv2_mm.mmengine_private import mask_logits

from .suppression import suppress
from .views import LoadedImage, View

Features = tuple[Tensor, ...]


def _standard_masks(head: Module, x: Features, rois: Tensor) -> list[Tensor]:
    return [mask_logits(head, x, rois)]


def _cascade_masks(head: Module, x: Features, rois: Tensor) -> list[Tensor]:
    return [mask_logits(head, stage, x, rois) for stage in range(head.num_stages)]


def _htc_masks(head: Module, x: Features, rois: Tensor) -> list[Tensor]:
    return mask_logits(head, -1, x, rois, semantic_feat=_semantic_map(head, x), training=False)


# mmdet's mask tests end in pasted masks; these are the same up to the logits before. A head that
# has a test of its own is not among them.
_MASK_LOGITS: dict[Callable, Callable[[Module, Features, Tensor], list[Tensor]]] = {
    StandardRoIHead.predict_mask: _standard_masks,
    CascadeRoIHead.predict_mask: _cascade_masks,
    HybridTaskCascadeRoIHead.predict_mask: _htc_masks,
}
_BOX_TESTS = (StandardRoIHead.predict_bbox, CascadeRoIHead.predict_bbox)


def is_supported(model: Module) -> bool:
    """Whether the model tests boxes and masks in one of the known ways."""
    if getattr(type(model), 'predict', None) is not TwoStageDetector.predict:
        return False
    head = type(model.roi_head)
    return getattr(head, 'predict_bbox', None) in _BOX_TESTS and (
        not model.roi_head.with_mask or head.predict_mask in _MASK_LOGITS
    )


def merge(
    model: Module, views: Sequence[View], loaded: Sequence[LoadedImage]
) -> list[DetDataSample]:
    """Detect on all views together; the samples are those of the first view."""
    merged: list[DetDataSample] = []
    candidates: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in loaded]
    for view in views:
        samples = _add_candidates(model, view, loaded, candidates)
        merged = merged or samples
    cfg = model.roi_head.test_cfg
    found = []
    for of_image in candidates:
        boxes, scores, labels = map(torch.cat, zip(*of_image, strict=True))
        kept, scores = suppress(boxes, scores, labels, nms=cfg.nms, limit=cfg.max_per_img)
        found.append(InstanceData(bboxes=boxes[kept], scores=scores, labels=labels[kept]))
    if model.roi_head.with_mask:
        _add_masks(model, views, loaded, found, merged)
    return model.add_pred_to_datasample(merged, found)


def _features(
    model: Module, view: View, loaded: Sequence[LoadedImage]
) -> tuple[Features, list[DetDataSample]]:
    data = model.data_preprocessor(view.batch(loaded), False)
    return model.extract_feat(data['inputs']), data['data_samples']


def _semantic_map(head: Module, x: Features) -> Tensor | None:
    return head.semantic_head(x)[1] if getattr(head, 'with_semantic', False) else None


def _add_candidates(
    model: Module, view: View, loaded: Sequence[LoadedImage], candidates: list[list]
) -> list[DetDataSample]:
    """Append boxes in pixels of the original image, scores and labels, for each image."""
    x, samples = _features(model, view, loaded)
    proposals = model.rpn_head.predict(x, samples, rescale=False)
    head = model.roi_head
    semantic = {}
    if isinstance(head, HybridTaskCascadeRoIHead):
        semantic['semantic_feat'] = _semantic_map(head, x)
    metas = [sample.metainfo for sample in samples]
    raw = head.predict_bbox(x, metas, proposals, rcnn_test_cfg=None, rescale=True, **semantic)
    for sample, result, of_image in zip(samples, raw, candidates, strict=True):
        scores = result.scores[:, :-1].float()  # the last is the background
        rows, labels = (scores > head.test_cfg.score_thr).nonzero(as_tuple=True)
        boxes = get_box_tensor(result.bboxes).float().reshape(len(scores), -1, 4)
        boxes = boxes[rows, labels if boxes.shape[1] > 1 else 0]
        if view.mirroring != 'none':
            boxes = bbox_flip(boxes, sample.ori_shape, view.mirroring)
        of_image.append((boxes, scores[rows, labels], labels))
    return samples


def _add_masks(
    model: Module,
    views: Sequence[View],
    loaded: Sequence[LoadedImage],
    found: list[InstanceData],
    merged: list[DetDataSample],
) -> None:
    head = model.roi_head
    if any(len(instances) for instances in found):
        total = sum(_mask_probabilities(model, view, loaded, found) for view in views)
        means = (total / len(views)).split([len(instances) for instances in found])
    else:
        means = [None] * len(found)
    # The boxes are those of the original image already.
    metas = [{**s.metainfo, 'scale_factor': (1.0, 1.0)} for s in merged]
    last = head.mask_head[-1] if isinstance(head, CascadeRoIHead) else head.mask_head
    last.predict_by_feat(means, found, metas, head.test_cfg, rescale=True, activate_map=True)


def _mask_probabilities(
    model: Module, view: View, loaded: Sequence[LoadedImage], found: list[InstanceData]
) -> Tensor:
    """Predict the masks of the boxes of all images on one view.

    Returns:
        (boxes, classes or 1, side, side), the side that of the mask head, in [0, 1].
    """
    x, samples = _features(model, view, loaded)
    boxes = []
    for instances, sample in zip(found, samples, strict=True):
        seen = instances.bboxes
        if view.mirroring != 'none':
            seen = bbox_flip(seen, sample.ori_shape, view.mirroring)
        boxes.append(seen * seen.new_tensor(sample.scale_factor).repeat(2))
    logits = _MASK_LOGITS[type(model.roi_head).predict_mask](model.roi_head, x, bbox2roi(boxes))
    mean = torch.stack([stage.float().sigmoid() for stage in logits]).mean(dim=0)
    # The crop of a mirrored box is mirrored.
    return mean.flip(FLIPS[view.mirroring])
