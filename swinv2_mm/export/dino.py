"""Predict with DINO on tensors alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .decisions import Outputs, Size, clipped, pixels, side_lengths

# Side of a proposal on the finest map, relative to the image; each coarser map doubles it.
_PROPOSED_SIDE = 0.05


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
    # mmdet's own read the sizes back.
    model.encoder.get_encoder_reference_points = _reference_points
    model.gen_encoder_output_proposals = partial(_proposals, model)
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


def _reference_points(sizes: Sequence[Size], ratios: Tensor, device: Any) -> Tensor:
    """Return the centres of all pixels of all maps, once for each map: (B, S, L, 2)."""
    points = torch.cat([_centres(*size) for size in sizes])
    return points[None, :, None] * ratios[:, None]


def _proposals(
    model: Any, memory: Tensor, mask: None, sizes: Sequence[Size]
) -> tuple[Tensor, Tensor]:
    """Return the encoder's output for each pixel, and a box around it as logits: (B, S, ...)."""
    boxes = []
    for level, size in enumerate(sizes):
        centres = _centres(*size)
        sides = torch.full_like(centres, _PROPOSED_SIDE * 2**level)
        boxes.append(torch.cat([centres, sides], -1))
    box = torch.cat(boxes)[None].expand(memory.shape[0], -1, -1)
    inside = ((box > 0.01) & (box < 0.99)).all(-1, keepdim=True)
    logits = torch.where(inside, torch.log(box / (1 - box)), torch.inf)
    return model.memory_trans_norm(model.memory_trans_fc(memory * inside)), logits


def _centres(height: int, width: int) -> Tensor:
    """Return x and y of the centres of the pixels of a map, relative to it: (H * W, 2)."""
    row, column = pixels(height, width)
    return (torch.stack([column, row], -1) + 0.5) / side_lengths(height, width)[:2]
