"""The sizes that a GPU is checked at, and the models of those sizes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.architectures import Architecture, resolve_architecture


class AttentionCase(NamedTuple):
    """One stage: sides of the map and of a window in tokens, heads, images."""

    size: int
    window: int
    heads: int
    images: int

    def __str__(self) -> str:
        return f'{self.images} x {self.size}², window {self.window}, {self.heads} heads'


class BackboneCase(NamedTuple):
    """One model: its arch, the side of an image in pixels, of a window in tokens, images."""

    arch: str | Architecture
    size_px: int
    window: int
    images: int

    def __str__(self) -> str:
        name = self.arch if isinstance(self.arch, str) else 'two blocks'
        return f'{name} {self.size_px}/w{self.window}, {self.images} images'


# The first and the third stage of the backbones below.
ATTENTION_CASES = (
    AttentionCase(64, 8, 3, 16),
    AttentionCase(96, 24, 4, 4),
    AttentionCase(24, 24, 16, 4),
    AttentionCase(160, 40, 6, 2),
    AttentionCase(256, 32, 3, 1),
)
BACKBONE_CASES = (
    BackboneCase('tiny', 256, 8, 16),
    BackboneCase('base', 384, 24, 4),
    BackboneCase('large', 640, 40, 1),
    BackboneCase('tiny', 1024, 32, 1),
)
CPU_CASES = (
    (AttentionCase(10, 4, 2, 1),),
    (BackboneCase(Architecture(32, (1, 1), (1, 2)), 64, 4, 1),),
)


def build_backbone(case: BackboneCase, *, name: str) -> nn.Module:
    """Build ours with an attention backend, or timm's; ours returns the last map only."""
    arch = resolve_architecture(case.arch)
    if name != 'timm':
        return SwinTransformerV2(
            arch,
            window_size=case.window,
            drop_path_rate=0.0,
            out_indices=(len(arch.depths) - 1,),
            attention=name,
        )
    from timm.models.swin_transformer_v2 import SwinTransformerV2 as Peer

    return Peer(
        img_size=case.size_px,
        window_size=case.window,
        embed_dim=arch.embed_dim,
        depths=arch.depths,
        num_heads=arch.num_heads,
        num_classes=0,
        drop_path_rate=0.0,
    )


def draw_images(case: BackboneCase, device: torch.device) -> Tensor:
    """Draw normalised images (B, 3, H, W)."""
    return torch.randn(case.images, 3, case.size_px, case.size_px, device=device)
