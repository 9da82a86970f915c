"""Build PVTv2 by the name of its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.backbones.pvt import PyramidVisionTransformerV2
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from swinv2_mm.core.numerics import KeepsNumerics, NumericsName

from .linear_attention import make_linear
from .same_padding import StridedConv2d
from .weights import load_pvtv2

# Width of a head, blocks per stage, MLP ratios, and whether attention is linear (paper table 1).
_WIDE, _NARROW = (8, 8, 4, 4), (4, 4, 4, 4)
ARCHITECTURES = {
    'b0': (32, (2, 2, 2, 2), _WIDE, False),
    'b1': (64, (2, 2, 2, 2), _WIDE, False),
    'b2': (64, (3, 4, 6, 3), _WIDE, False),
    'b2-li': (64, (3, 4, 6, 3), _WIDE, True),
    'b3': (64, (3, 4, 18, 3), _WIDE, False),
    'b4': (64, (3, 8, 27, 3), _WIDE, False),
    'b5': (64, (3, 6, 40, 3), _NARROW, False),
}
_NORM_CFG = dict(type='LN', eps=1e-6)
# Epsilon of the norms of the embedding and of the reduced map, as the weights were trained; mmdet
# takes that of the blocks. MindSpore's default is 1e-7.
_EPS_OF_REDUCTION: dict[NumericsName, float] = {'official': 1e-5, 'mindspore': 1e-7}


@MODELS.register_module()
class PVTv2(KeepsNumerics, PyramidVisionTransformerV2):
    """mmdet's PVTv2 for all three libraries: sizes by name, strict loading.

    Args:
        arch: ``b0`` to ``b5`` or ``b2-li``.
        drop_path_rate: Stochastic depth of the last block, in [0, 1); rises linearly from 0.
        out_indices: Stages whose normalised maps are returned; strides 4, 8, 16, 32.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with official, timm, mmdet or MindCV
            weights, or ``None`` for the official initialisation.
        numerics: ``official``, or ``mindspore``: epsilons, GELU and padding as in MindCV. Weights
            bring their own: MindSpore's files, and what is saved after they were read.

    Raises:
        ValueError: If a value does not fit.
    """

    def __init__(
        self,
        arch: str = 'b2',
        *,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | None = None,
        numerics: NumericsName = 'official',
    ) -> None:
        if arch not in ARCHITECTURES:
            raise ValueError(f"unknown arch '{arch}' of PVTv2 (known: {', '.join(ARCHITECTURES)})")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate}')
        if init_cfg is not None and set(init_cfg) != {'type', 'checkpoint'}:
            raise ValueError(
                "init_cfg of PVTv2 must be dict(type='Pretrained', checkpoint=...) or None, got "
                f'{dict(init_cfg)}'
            )
        width, depths, mlp_ratios, is_linear = ARCHITECTURES[arch]
        super().__init__(
            embed_dims=width,
            num_layers=depths,
            mlp_ratios=mlp_ratios,
            drop_path_rate=drop_path_rate,
            out_indices=tuple(out_indices),
            norm_cfg=_NORM_CFG,
            init_cfg=init_cfg,
        )
        self.depths = depths
        self.out_channels = tuple(width * self.num_heads[i] for i in out_indices)
        if is_linear:
            layers = [layer for _, stage, _ in self.layers for layer in stage]
            for i, layer in enumerate(layers):
                rate = drop_path_rate * i / (len(layers) - 1)
                make_linear(layer, norm_cfg=_NORM_CFG, drop_path_rate=rate)

        for patch_embed, stage, _ in self.layers:
            patch_embed.projection = StridedConv2d(patch_embed.projection)
            for layer in stage:
                if layer.attn.sr_ratio > 1:
                    layer.attn.sr = StridedConv2d(layer.attn.sr)
        self.set_numerics(numerics)

    def set_numerics(self, numerics: NumericsName) -> None:
        """Compute as another implementation does with the same weights.

        Raises:
            ValueError: If the name is unknown.
        """
        super().set_numerics(numerics)
        for module in self.modules():
            if isinstance(module, nn.GELU):
                module.approximate = 'tanh' if numerics == 'mindspore' else 'none'
            elif isinstance(module, StridedConv2d):
                module.is_same_padded = numerics == 'mindspore'
        for patch_embed, stage, _ in self.layers:
            reductions = [layer.attn for layer in stage if layer.attn.sr_ratio > 1]
            for part in (patch_embed, *reductions):
                part.norm.eps = _EPS_OF_REDUCTION[numerics]

    def init_weights(self) -> None:
        """Initialise as the official code does, or load what ``init_cfg`` names.

        Raises:
            CheckpointError: If those weights do not fit.
        """
        if self.init_cfg is None:
            super().init_weights()
            return
        load_pvtv2(self, self.init_cfg['checkpoint'])
        print_log(f'PVTv2: loaded {self.init_cfg["checkpoint"]}', logger='current')

    def forward(self, x: Any) -> tuple:
        """(B, 3, H_px, W_px) -> tuple of (B, C_i, H_i, W_i)."""
        return tuple(super().forward(x))

    def parameter_depth(self, name: str) -> int:
        """Depth of a parameter for layer-wise decay, as ``parameter_rules.backbone_depth``."""
        _, stage, part, *rest = name.split('.')
        before = sum(self.depths[: int(stage)])
        if part == '2':
            return sum(self.depths) + 1
        return before + (1 + int(rest[0]) if part == '1' else 0)
