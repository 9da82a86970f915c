"""Deformable attention and Mask2Former's pixel decoder for maps whose sizes are left open.

mmdet holds the sizes of the maps in a tensor and reads them back, which fixes them in a graph. Here
they are a list of numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_mm.ops.deformable_attention import attend

from .decisions import Size, side_lengths


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
        assert module.batch_first and reference_points is not None and key_padding_mask is None
        value = module.value_proj(query if value is None else value)
        value = value.unflatten(-1, (module.num_heads, -1))
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        samples = (module.num_heads, module.num_levels, module.num_points)
        offsets = module.sampling_offsets(query).unflatten(-1, (*samples, 2))
        weights = module.attention_weights(query).unflatten(-1, (samples[0], -1)).softmax(-1)
        weights = weights.unflatten(-1, samples[1:])
        reference = reference_points[:, :, None, :, None]
        if reference.shape[-1] == 4:
            locations = reference[..., :2] + offsets / samples[2] * reference[..., 2:] * 0.5
        else:
            sides = torch.stack([side_lengths(*size)[:2] for size in spatial_shapes])
            locations = reference + offsets / sides[:, None]
        sampled, start = value.new_zeros(()), 0
        for level, (height, width) in enumerate(spatial_shapes):
            stop = start + height * width
            sampled = sampled + attend(
                value[:, start:stop],
                locations[:, :, :, level],
                weights[:, :, :, level],
                size=(height, width),
            )
            start = stop
        return module.output_proj(sampled) + identity


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
