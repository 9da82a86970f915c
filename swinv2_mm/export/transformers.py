"""Predict with DINO and Mask2Former on tensors alone.

mmdet holds the sizes of the maps in a tensor and reads them back, which fixes sizes that should
stay open. Here they are a list of numbers, and the two modules that cannot take it are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decisions import clipped, side_lengths

Size = tuple[int, int]
Outputs = dict[str, Tensor]


class DeformableAttention(nn.Module):
    """mmcv's ``MultiScaleDeformableAttention`` for a list of sizes.

    Args:
        original: The module that is replaced.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.original: Any = original

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Sequence[Size] = (),
        **unused: Any,
    ) -> Tensor:
        """Sample the maps around the reference points; the arguments are mmcv's.

        Shapes:
            query (B, Q, C), value (B, S, C), reference_points (B, Q, L, 2 or 4) -> (B, Q, C)
        """
        module = self.original
        assert module.batch_first and reference_points is not None
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        batch, queries, _ = query.shape
        heads, levels, points = module.num_heads, module.num_levels, module.num_points
        value = module.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (heads, -1))
        offsets = module.sampling_offsets(query).reshape(batch, queries, heads, levels, points, 2)
        weights = module.attention_weights(query).reshape(batch, queries, heads, levels * points)
        weights = weights.softmax(-1).reshape(batch, queries, heads, levels, points)
        reference = reference_points[:, :, None, :, None]
        if reference.shape[-1] == 4:
            locations = reference[..., :2] + offsets / points * reference[..., 2:] * 0.5
        else:
            sides = torch.stack([side_lengths(*size)[:2] for size in spatial_shapes])
            locations = reference + offsets / sides[:, None]
        sampled = value.new_zeros(())
        start = 0
        for level, (height, width) in enumerate(spatial_shapes):
            here = value[:, start : start + height * width]
            start = start + height * width
            maps = here.permute(0, 2, 3, 1).reshape(batch * heads, -1, height, width)
            grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
            samples = F.grid_sample(maps, grid, align_corners=False)
            weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
            sampled = sampled + (samples * weight[:, None]).sum(-1)
        out = sampled.reshape(batch, -1, queries).transpose(1, 2)
        return module.output_proj(out) + identity


class PixelDecoder(nn.Module):
    """mmdet's ``MSDeformAttnPixelDecoder`` for maps of any size.

    Args:
        original: The module that is replaced.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.original: Any = original

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the map for masks, and those for the decoder, the coarsest first."""
        module = self.original
        batch = feats[0].shape[0]
        # The coarsest first.
        levels = [module.num_input_levels - 1 - i for i in range(module.num_encoder_levels)]
        sizes = [tuple(feats[level].shape[2:]) for level in levels]
        tokens, positions, points = [], [], []
        for i, (level, (height, width)) in enumerate(zip(levels, sizes, strict=True)):
            tokens.append(module.input_convs[i](feats[level]).flatten(2).transpose(1, 2))
            nothing = feats[level].new_zeros((batch, height, width), dtype=torch.bool)
            position = module.postional_encoding(nothing)
            position = position + module.level_encoding.weight[i][:, None, None]
            positions.append(position.flatten(2).transpose(1, 2))
            priors = module.point_generator.single_level_grid_priors(
                (height, width), level, device='cpu'
            )
            points.append(priors / (side_lengths(height, width)[:2] * module.strides[level]))
        point = torch.cat(points)[None, :, None].repeat(batch, 1, len(levels), 1)
        memory = module.encoder(
            query=torch.cat(tokens, 1),
            query_pos=torch.cat(positions, 1),
            key_padding_mask=None,
            spatial_shapes=sizes,
            reference_points=point,
            level_start_index=None,
            valid_ratios=point.new_ones((batch, len(levels), 2)),
        )
        outs: list[Tensor] = []
        start = 0
        for height, width in sizes:
            here = memory[:, start : start + height * width]
            outs.append(here.transpose(1, 2).reshape(batch, -1, height, width))
            start = start + height * width
        for i in range(module.num_input_levels - module.num_encoder_levels - 1, -1, -1):
            lateral = module.lateral_convs[i](feats[i])
            above = F.interpolate(
                outs[-1], size=lateral.shape[-2:], mode='bilinear', align_corners=False
            )
            outs.append(module.output_convs[i](lateral + above))
        return module.mask_feature(outs[-1]), outs[: module.num_outs]


def replace_deformable(model: nn.Module) -> None:
    """Replace deformable attention, and the pixel decoders around it, in a model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            kind = type(child).__name__
            if kind == 'MultiScaleDeformableAttention':
                setattr(module, name, DeformableAttention(child))
            elif kind == 'MSDeformAttnPixelDecoder':
                setattr(module, name, PixelDecoder(child))


def dino(model: Any, feats: Sequence[Tensor], *, size: Size) -> Outputs:
    """Predict with DINO: a batch of images, each with the same number of detections.

    Args:
        model: The detector.
        feats: Maps of its neck.
        size: Height and width of the images.
    """
    batch = feats[0].shape[0]
    sizes = [tuple(feat.shape[2:]) for feat in feats]
    positions = []
    for level, feat in enumerate(feats):
        position = model.positional_encoding(None, input=feat)
        positions.append((position + model.level_embed[level][:, None, None]).flatten(2))
    ratios = feats[0].new_ones((batch, len(feats), 2))
    memory = model.forward_encoder(
        feat=torch.cat([feat.flatten(2) for feat in feats], 2).transpose(1, 2),
        feat_mask=None,
        feat_pos=torch.cat(positions, 2).transpose(1, 2),
        spatial_shapes=sizes,
        level_start_index=None,
        valid_ratios=ratios,
    )['memory']
    queries, _ = model.pre_decoder(memory, None, sizes)
    # Not ``forward_decoder``: it compares the number of images, which is open.
    states, references = model.decoder(
        query=queries['query'],
        value=memory,
        key_padding_mask=None,
        self_attn_mask=None,
        reference_points=queries['reference_points'],
        spatial_shapes=sizes,
        level_start_index=None,
        valid_ratios=ratios,
        reg_branches=model.bbox_head.reg_branches,
    )
    logits, boxes = model.bbox_head(states, list(references))
    head, logit, box = model.bbox_head, logits[-1], boxes[-1]
    # Classes compete over all queries of an image.
    num_most = head.test_cfg.get('max_per_img', logit.shape[1])
    scores, index = logit.sigmoid().flatten(1).topk(num_most)
    box = box.gather(1, (index // head.num_classes)[:, :, None].expand(-1, -1, 4))
    centre, half = box[..., :2], box[..., 2:] / 2
    corners = torch.cat([centre - half, centre + half], -1)
    sides = side_lengths(*size)
    return {
        'boxes': clipped(corners * sides, sides),
        'scores': scores,
        'labels': index % head.num_classes,
    }


def mask2former(model: Any, feats: Sequence[Tensor], *, size: Size) -> Outputs:
    """Predict with Mask2Former: instances, a panoptic map, or both, as its ``test_cfg`` says.

    Args:
        model: The detector.
        feats: Maps of its backbone, of images padded at the bottom and right.
        size: Height and width of the images.
    """
    all_logits, all_masks = model.panoptic_head(feats, [])
    logits, coarse = all_logits[-1], all_masks[-1]
    # The first map has stride 4, and the masks its size.
    padded = [side * _MASK_STRIDE for side in coarse.shape[2:]]
    masks = F.interpolate(coarse, size=padded, mode='bilinear', align_corners=False)
    masks = masks[:, :, : size[0], : size[1]]
    fusion = model.panoptic_fusion_head
    outputs: Outputs = {}
    if fusion.test_cfg.get('instance_on', False):
        outputs |= _instances(fusion, logits, masks)
    if fusion.test_cfg.get('panoptic_on', True):
        outputs['panoptic'] = _panoptic(fusion, logits, masks)
    return outputs | {'class_logits': logits, 'mask_logits': coarse}


_MASK_STRIDE = 4
# A thing of a panoptic map is its class plus this times its number: mmdet's INSTANCE_OFFSET.
_INSTANCE_OFFSET = 1000


def _instances(fusion: Any, logits: Tensor, masks: Tensor) -> Outputs:
    """Decide which queries are instances: (B, Q, C + 1), (B, Q, H, W) -> boxes, ..., masks."""
    num_classes = fusion.num_classes
    scores = logits.softmax(-1)[..., :-1].flatten(1)
    scores, index = scores.topk(fusion.test_cfg.get('max_per_image', 100))
    labels, queries = index % num_classes, index // num_classes
    if fusion.num_stuff_classes:
        # Of one image.
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
