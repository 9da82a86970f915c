"""Predict instances and panoptic maps with Mask2Former on tensors alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swinv2_mm.runtime.masks import enlarged

from .decisions import Outputs, Size

# A thing of a panoptic map is its class plus this times its number: mmdet's INSTANCE_OFFSET.
_INSTANCE_OFFSET = 1000


def mask2former(model: Any, feats: Sequence[Tensor], *, size: Size) -> Outputs:
    """Predict with Mask2Former: instances, a panoptic map, or both, as its ``test_cfg`` says.

    Args:
        model: The detector.
        feats: Maps of its backbone, of images padded at the bottom and right.
        size: Height and width of the images.
    """
    all_logits, all_masks = model.panoptic_head(feats, [])
    logits, coarse = all_logits[-1], all_masks[-1]
    masks = enlarged(coarse)[:, :, : size[0], : size[1]]
    fusion = model.panoptic_fusion_head
    outputs: Outputs = {}
    if fusion.test_cfg.get('instance_on', False):
        outputs |= _instances(fusion, logits, masks)
    if fusion.test_cfg.get('panoptic_on', True):
        outputs['panoptic'] = _panoptic(fusion, logits, masks)
    return outputs | {'class_logits': logits, 'mask_logits': coarse}


def _instances(fusion: Any, logits: Tensor, masks: Tensor) -> Outputs:
    """Decide which queries are instances: (B, Q, C + 1), (B, Q, H, W) -> boxes, ..., masks."""
    num_classes = fusion.num_classes
    scores = logits.softmax(-1)[..., :-1].flatten(1)
    scores, index = scores.topk(fusion.test_cfg.get('max_per_image', 100))
    labels, queries = index % num_classes, index // num_classes
    if fusion.num_stuff_classes:
        # The batch is one image.
        things = (labels[0] < fusion.num_things_classes).nonzero()[:, 0]
        scores, labels, queries = scores[:, things], labels[:, things], queries[:, things]
    height, width = masks.shape[2:]
    masks = masks.gather(1, queries[:, :, None, None].expand(-1, -1, height, width))
    binary = masks > 0
    sure = (masks.sigmoid() * binary).sum((2, 3)) / (binary.sum((2, 3)) + 1e-6)
    return {
        'boxes': _boxes_around(binary),
        'scores': scores * sure,
        'labels': labels,
        'masks': binary,
    }


def _boxes_around(masks: Tensor) -> Tensor:
    """Return the box around each mask, zeros for an empty one: (B, N, H, W) -> (B, N, 4)."""
    starts, stops = [], []
    for axis in (2, 3):  # along x, along y
        covered = masks.any(axis)
        number = torch.arange(covered.shape[2], dtype=torch.float32)
        stop = torch.where(covered, number + 1, 0.0).amax(2)
        start = torch.where(covered, number, torch.inf).amin(2)
        starts.append(torch.where(stop > 0, start, 0.0))
        stops.append(stop)
    return torch.stack([*starts, *stops], -1)


def _panoptic(fusion: Any, logits: Tensor, masks: Tensor) -> Tensor:
    """Give every pixel to a query that keeps enough of its own: (B, Q, ...) -> (B, H, W)."""
    settings = fusion.test_cfg
    scores, labels = logits.softmax(-1).max(-1)
    is_kept = (labels != fusion.num_classes) & (scores > settings.get('object_mask_thr', 0.8))
    probabilities = masks.sigmoid()
    weighted = scores[:, :, None, None] * probabilities
    winner = torch.where(is_kept[:, :, None, None], weighted, -1.0).argmax(1, keepdim=True)
    queries = torch.arange(masks.shape[1])[:, None, None]
    area = (winner == queries).sum((2, 3))
    inside = probabilities >= 0.5
    original = inside.sum((2, 3))
    is_segment = is_kept & (area > 0) & (original > 0)
    is_segment &= area / original.clamp(min=1) >= settings.get('iou_thr', 0.8)
    is_thing = is_segment & (labels < fusion.num_things_classes)
    ids = labels + is_thing.cumsum(1) * is_thing * _INSTANCE_OFFSET
    ids = torch.where(is_segment, ids, fusion.num_classes)
    height, width = masks.shape[2:]
    of_pixel = ids[:, :, None, None].expand(-1, -1, height, width).gather(1, winner)
    if settings.get('filter_low_score', False):
        is_low = ~inside.gather(1, winner)
        of_pixel = torch.where(is_low, fusion.num_classes, of_pixel)
    return of_pixel[:, 0].to(torch.int32)
