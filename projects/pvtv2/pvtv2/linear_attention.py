"""The linear variant of PVTv2, ``b2-li``, which mmdet's backbone lacks (paper section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.models.backbones.pvt import MixFFN, PVTEncoderLayer, SpatialReductionAttention
from mmdet.models.layers import nchw_to_nlc, nlc_to_nchw
from torch import Tensor, nn

# Keys and values are pooled to so many rows and columns, whatever the map's size.
_POOLED_SIDE = 7


class PooledAttention(SpatialReductionAttention):
    """Attention to a map that is pooled to 7 x 7: its cost is linear in the tokens."""

    def __init__(self, dim: int, *, num_heads: int, norm_cfg: dict, drop_path_rate: float) -> None:
        super().__init__(
            dim,
            num_heads,
            dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
            norm_cfg=norm_cfg,
            # Any value above 1 makes the two layers; the kernel is exchanged.
            sr_ratio=2,
        )
        self.sr = nn.Conv2d(dim, dim, kernel_size=1)
        self.activation = nn.GELU()

    def forward(
        self, x: Tensor, hw_shape: tuple[int, int], identity: Tensor | None = None
    ) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C)."""
        pooled = F.adaptive_avg_pool2d(nlc_to_nchw(x, hw_shape), _POOLED_SIDE)
        pooled = self.activation(self.norm(nchw_to_nlc(self.sr(pooled)))).transpose(0, 1)
        out = self.attn(x.transpose(0, 1), pooled, pooled, need_weights=False)[0].transpose(0, 1)
        return (x if identity is None else identity) + self.dropout_layer(out)


class RectifiedFFN(MixFFN):
    """The convolutional feed-forward branch with a ReLU before the depth-wise convolution."""

    def forward(
        self, x: Tensor, hw_shape: tuple[int, int], identity: Tensor | None = None
    ) -> Tensor:
        """(B, H * W, C) -> (B, H * W, C)."""
        first, *others = self.layers
        out = first(nlc_to_nchw(x, hw_shape)).relu()
        for layer in others:
            out = layer(out)
        return (x if identity is None else identity) + self.dropout_layer(nchw_to_nlc(out))


def make_linear(layer: PVTEncoderLayer, *, norm_cfg: dict, drop_path_rate: float) -> None:
    """Turn a layer of mmdet's PVTv2 into one of the linear variant."""
    dim = layer.attn.embed_dims
    layer.attn = PooledAttention(
        dim, num_heads=layer.attn.num_heads, norm_cfg=norm_cfg, drop_path_rate=drop_path_rate
    )
    layer.ffn = RectifiedFFN(
        dim,
        layer.ffn.feedforward_channels,
        dropout_layer=dict(type='DropPath', drop_prob=drop_path_rate),
        use_conv=True,
    )
