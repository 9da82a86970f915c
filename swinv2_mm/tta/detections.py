"""Merge detections over views: their union, then NMS within each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip, get_box_tensor
from mmdet.structures.mask import encode_mask_results
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from torch import Tensor
from torch.nn import Module

from swinv2_mm.config.entries import FLIPS
from swinv2_mm.errors import UserError

from . import two_stage
from .suppression import suppress
from .views import LoadedImage, View

_DEFAULT_LIMIT = 100  # detections per image, where a model sets none


def mirror_back(sample: DetDataSample, mirroring: str) -> None:
    """Flip the predictions on a mirrored image back, in place."""
    if mirroring == 'none':
        return
    if 'pred_instances' in sample:
        found = sample.pred_instances
        found.bboxes = bbox_flip(get_box_tensor(found.bboxes), sample.ori_shape, mirroring)
        if 'masks' in found:
            found.masks = found.masks.flip(FLIPS[mirroring])
    for name in ('pred_panoptic_seg', 'pred_sem_seg'):
        if name in sample:
            segments = sample.get(name)
            segments.sem_seg = segments.sem_seg.flip(FLIPS[mirroring])


def merge(
    model: Module, views: Sequence[View], loaded: Sequence[LoadedImage], *, nms: dict | None
) -> list[DetDataSample]:
    """Merge boxes and, where there are any, instance masks.

    Two-stage detectors: see ``two_stage``. All others predict finished detections on each view;
    these are thinned out by the model's own suppression, or ``nms`` if it has none. A detection
    that stays keeps the mask of its view: queries of different views do not correspond, so there
    is nothing to average. Masks wait as run lengths.

    Raises:
        UserError: If the model predicts panoptic segments, which cannot be merged.
    """
    if two_stage.is_supported(model):
        return two_stage.merge(model, views, loaded)
    merged: list[DetDataSample] = []
    found: list[list[_Found]] = [[] for _ in loaded]
    for view in views:
        samples = model.test_step(view.batch(loaded))
        if any('pred_panoptic_seg' in s or 'pred_instances' not in s for s in samples):
            raise UserError(
                f'--tta: predictions of {type(model).__name__} other than instances cannot be '
                'merged; test it with one scale and one flip'
            )
        for sample, of_image in zip(samples, found, strict=True):
            mirror_back(sample, view.mirroring)
            of_image.append(_Found(sample.pred_instances))
            del sample.pred_instances
        merged = merged or samples
    cfg = getattr(model, 'test_cfg', None) or {}
    cfg = cfg.get('rcnn', cfg)
    limit = cfg.get('max_per_img', cfg.get('max_per_image', _DEFAULT_LIMIT))
    for sample, of_image in zip(merged, found, strict=True):
        sample.pred_instances = _thin_out(of_image, nms=cfg.get('nms', nms), limit=limit)
    return merged


class _Found:
    """The detections of one view, masks as run lengths."""

    def __init__(self, instances: InstanceData) -> None:
        self.boxes = get_box_tensor(instances.bboxes).float()
        self.scores = instances.scores.float()
        self.labels = instances.labels
        self.masks = None
        if 'masks' in instances:
            self.masks = encode_mask_results(instances.masks.cpu().numpy())
            self.size = instances.masks.shape[1:]


def _thin_out(found: list[_Found], *, nms: dict | None, limit: int) -> InstanceData:
    boxes = torch.cat([f.boxes for f in found])
    scores = torch.cat([f.scores for f in found])
    labels = torch.cat([f.labels for f in found])
    kept, scores = suppress(boxes, scores, labels, nms=nms, limit=limit)
    instances = InstanceData(bboxes=boxes[kept], scores=scores, labels=labels[kept])
    if found[0].masks is not None:
        masks = [mask for f in found for mask in f.masks]
        instances.masks = _decode([masks[k] for k in kept.tolist()], found[0].size).to(boxes.device)
    return instances


def _decode(masks: list[dict], size: tuple[int, int]) -> Tensor:
    decoded = np.zeros((len(masks), *size), dtype=bool)
    for target, mask in zip(decoded, masks, strict=True):
        target[:] = rle.decode(mask)
    return torch.from_numpy(decoded)
