"""RoI features in standard operators, for any number of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchvision.ops
from torch import Tensor, nn

from swinv2_mm.errors import UserError


class RoIFeatures(nn.Module):
    """mmdet's ``SingleRoIExtractor`` without its branches on how many RoIs a level gets.

    Args:
        extractor: The original.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        if any(layer.pool_mode != 'avg' for layer in extractor.roi_layers):
            raise UserError('a roi_layer with pool_mode max has no counterpart in ONNX')
        self.extractor: Any = extractor

    @property
    def num_inputs(self) -> int:
        """Number of maps that are pooled."""
        return self.extractor.num_inputs

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pool each RoI from the map of its size: (N, 5) -> (N, C, h, w)."""
        if len(feats) == 1:
            return self._pool(feats[0], rois, level=0)
        levels = self.extractor.map_roi_levels(rois, len(feats))
        size = self.extractor.roi_layers[0].output_size
        pooled = feats[0].new_zeros((rois.shape[0], self.extractor.out_channels, *size))
        for level, feat in enumerate(feats):
            index = (levels == level).nonzero()[:, 0]
            pooled = pooled.index_put((index,), self._pool(feat, rois[index], level=level))
        return pooled

    def _pool(self, feat: Tensor, rois: Tensor, *, level: int) -> Tensor:
        layer = self.extractor.roi_layers[level]
        return torchvision.ops.roi_align(
            feat,
            rois,
            layer.output_size,
            spatial_scale=layer.spatial_scale,
            sampling_ratio=layer.sampling_ratio,
            aligned=layer.aligned,
        )


def replace_extractors(model: nn.Module) -> None:
    """Put a ``RoIFeatures`` in the place of every RoI extractor in a model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if hasattr(child, 'roi_layers') and not isinstance(module, RoIFeatures):
                setattr(module, name, RoIFeatures(child))
