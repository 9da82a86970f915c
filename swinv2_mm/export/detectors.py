"""Predict with detectors of mmdet on tensors alone: RPN, RoI heads with cascades, anchor heads.

The layers are mmdet's own modules; what their ``predict`` decides in between is in ``decisions``.
Shapes: ``N`` boxes, ``C`` classes; features are those of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_mm.runtime.masks import pasted

from .decisions import (
    Outputs,
    Size,
    best_of_all,
    best_of_level,
    clipped,
    detections,
    side_lengths,
)


def two_stage(model: Any, feats: Sequence[Tensor], *, size: Size) -> Outputs:
    """Predict with a Faster, Mask or Cascade R-CNN, or a hybrid task cascade.

    Args:
        model: The detector.
        feats: Maps of its neck, of one image.
        size: Height and width of the image.
    """
    head = model.roi_head
    boxes = _proposals(model.rpn_head, feats, size=size)
    semantic = None
    if getattr(head, 'semantic_head', None) is not None:
        semantic = head.semantic_head(feats)[1]
    boxes, scores, labels = _classified(head, feats, semantic, boxes, size=size)
    outputs = {'boxes': boxes, 'scores': scores, 'labels': labels}
    if head.with_mask:
        shapes = _mask_probabilities(head, feats, semantic, boxes, labels)
        masks = pasted(shapes, boxes, height=size[0], width=size[1])
        outputs |= {'masks': masks >= head.test_cfg.mask_thr_binary, 'mask_shapes': shapes}
    return outputs


def one_stage(model: Any, feats: Sequence[Tensor], *, size: Size) -> Outputs:
    """Predict with a head on anchors, such as RetinaNet's and that of ATSS.

    Args:
        model: The detector.
        feats: Maps of its neck, of one image.
        size: Height and width of the image.
    """
    head = model.bbox_head
    settings = head.test_cfg
    outs = head(feats)
    anchors = _anchors(head, outs[0])
    boxes, scores, labels = [], [], []
    for level, (logits, deltas) in enumerate(zip(outs[0], outs[1], strict=True)):
        probabilities = _activated(head, per_anchor(logits, head.cls_out_channels))
        num_classes = probabilities.shape[1]
        flat = probabilities.reshape(-1)
        sure = (flat > settings.score_thr).nonzero()[:, 0]
        kept, order = best_of_level(flat[sure], settings)
        best = sure[order]
        rows = best // num_classes
        if len(outs) > 2:
            # Multiply by the centredness; the threshold holds for the score without it.
            kept = kept * per_anchor(outs[2][level], 1)[:, 0].sigmoid()[rows]
        boxes.append(_decoded(head, anchors[level][rows], per_anchor(deltas, 4)[rows], size))
        scores.append(kept)
        labels.append(best % num_classes)
    found = best_of_all(boxes, scores, labels, settings)
    return dict(zip(('boxes', 'scores', 'labels'), found, strict=True))


def _proposals(rpn: Any, feats: Sequence[Tensor], *, size: Size) -> Tensor:
    """Return the boxes that the RPN proposes: (N, 4)."""
    settings = rpn.test_cfg
    logits, deltas = rpn(feats)
    anchors = _anchors(rpn, logits)
    boxes, scores, levels = [], [], []
    for level, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
        score = _activated(rpn, per_anchor(logit, rpn.cls_out_channels))[:, 0]
        best, index = best_of_level(score, settings)
        boxes.append(_decoded(rpn, anchors[level][index], per_anchor(delta, 4)[index], size))
        scores.append(best)
        levels.append(torch.full_like(index, level))
    return best_of_all(boxes, scores, levels, settings)[0]


def _classified(
    head: Any, feats: Sequence[Tensor], semantic: Tensor | None, boxes: Tensor, *, size: Size
) -> tuple[Tensor, Tensor, Tensor]:
    """Classify and refine proposals in all stages: (N, 4) -> (n, 4), (n,), (n,)."""
    sides = side_lengths(*size)
    # A row more, so that no layer gets an empty batch; its scores are dropped.
    boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
    stages = _stages(head.bbox_head)
    extractors = _stages(head.bbox_roi_extractor)
    total = None
    for stage, (box_head, extractor) in enumerate(zip(stages, extractors, strict=True)):
        pooled = _pooled(head, extractor, feats, semantic, boxes, branch='bbox')
        logits, deltas = box_head(pooled)
        total = logits if total is None else total + logits
        if stage < len(stages) - 1:
            if not box_head.reg_class_agnostic:
                label = logits[:, :-1].argmax(1)
                deltas = deltas.reshape(-1, box_head.num_classes, 4)
                deltas = deltas.gather(1, label[:, None, None].expand(-1, 1, 4))[:, 0]
            boxes = clipped(box_head.bbox_coder.decode(boxes, deltas), sides)
    assert total is not None
    final = stages[-1]
    scores = (total / len(stages)).softmax(-1)[:, :-1]
    decoded = final.bbox_coder.decode(boxes, deltas)
    decoded = clipped(decoded.reshape(-1, 4), sides).reshape(decoded.shape)
    return detections(decoded[:-1], scores[:-1], settings=head.test_cfg)


def _mask_probabilities(
    head: Any, feats: Sequence[Tensor], semantic: Tensor | None, boxes: Tensor, labels: Tensor
) -> Tensor:
    """Return the mask of the class of each box, in the coordinates of the box: (N, h, w)."""
    # A row more, as for the boxes.
    boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
    labels = torch.cat([labels, labels.new_zeros(1)])
    heads, extractors = _stages(head.mask_head), _stages(head.mask_roi_extractor)
    if hasattr(head, 'mask_info_flow'):
        # A hybrid task cascade: features flow from head to head, and the last one decides.
        pooled = _pooled(head, extractors[-1], feats, semantic, boxes, branch='mask')
        flow = None
        for mask_head in heads:
            if head.mask_info_flow:
                logits, flow = mask_head(pooled, flow)
            else:
                logits = mask_head(pooled, return_feat=False)
        masks = logits.sigmoid()
    else:
        stages = [
            mask_head(_pooled(head, extractor, feats, semantic, boxes, branch='mask')).sigmoid()
            for mask_head, extractor in zip(heads, extractors, strict=True)
        ]
        masks = sum(stages[1:], stages[0]) / len(stages)
    if masks.shape[1] > 1:
        index = labels[:, None, None, None].expand(-1, 1, *masks.shape[2:])
        masks = masks.gather(1, index)
    return masks[:-1, 0]


def _pooled(
    head: Any,
    extractor: Any,
    feats: Sequence[Tensor],
    semantic: Tensor | None,
    boxes: Tensor,
    *,
    branch: str,
) -> Tensor:
    """Return the features of boxes, with those of the semantic branch where there is one."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    pooled = extractor(feats[: extractor.num_inputs], rois)
    if semantic is not None and branch in head.semantic_fusion:
        context = head.semantic_roi_extractor([semantic], rois)
        if context.shape[-2:] != pooled.shape[-2:]:
            context = F.adaptive_avg_pool2d(context, pooled.shape[-2:])
        pooled = pooled + context
    return pooled


def _stages(part: Any) -> list[Any]:
    """Return the stages of a part of an RoI head; one where there is no cascade."""
    return list(part) if isinstance(part, torch.nn.ModuleList) else [part]


def _anchors(head: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    sizes = [x.shape[-2:] for x in maps]
    return head.prior_generator.grid_priors(sizes, device='cpu')


def per_anchor(x: Tensor, channels: int) -> Tensor:
    """Reorder a head's outputs for an image by anchor: (1, A * channels, H, W) -> (N, channels)."""
    # To reshape a view torch would fix in the graph that the map has several places.
    by_place = x[0].permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
    return by_place.reshape(-1, channels)


def widen_single_channels(model: torch.nn.Module) -> None:
    """Compute maps of one channel as the first of two, in place.

    Of a convolution to one channel torch would fix in the graph that the map has several places.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == 1:
            module.out_channels = 2
            module.weight = torch.nn.Parameter(module.weight.repeat(2, 1, 1, 1))
            if module.bias is not None:
                module.bias = torch.nn.Parameter(module.bias.repeat(2))
            module.register_forward_hook(_first_channel)


def _first_channel(module: torch.nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    return out[:, :1]


def _activated(head: Any, logits: Tensor) -> Tensor:
    """Turn logits into probabilities of the classes, without the background."""
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]


def _decoded(head: Any, anchors: Tensor, deltas: Tensor, size: Size) -> Tensor:
    """Apply the deltas of a head to anchors: (N, 4), (N, 4) -> (N, 4)."""
    one = anchors.new_zeros(1, 4)
    # A row more: the coder branches on whether there is any.
    boxes = head.bbox_coder.decode(torch.cat([anchors, one]), torch.cat([deltas, one]))[:-1]
    return clipped(boxes, side_lengths(*size))
