"""Predict with DINO on tensors alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .decisions import Outputs, Size, clipped, side_lengths


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
