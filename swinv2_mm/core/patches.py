"""Layers that cut an image into patches and merge patches (paper figure 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import linear
from .tracing import fx_leaf


class PatchEmbed(nn.Module):
    """Cut an image into patches and embed them.

    Args:
        in_channels: Channels of the image.
        dim: Channels C of a token.
        patch_size_px: Side of a patch.
    """

    def __init__(self, in_channels: int, *, dim: int, patch_size_px: int) -> None:
        super().__init__()
        self.patch_size_px = patch_size_px
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size_px, stride=patch_size_px)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pad the image at the bottom and right to whole patches, and embed it.

        Shapes:
            (B, in_channels, H_px, W_px) -> (B, ceil(H_px / p), ceil(W_px / p), C)
        """
        x = _pad_to_patches(x, patch_size_px=self.patch_size_px)
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


@fx_leaf
def _pad_to_patches(x: Tensor, *, patch_size_px: int) -> Tensor:
    p = patch_size_px
    if torch.compiler.is_compiling():
        # One graph for all sizes: the convolution drops what is too much.
        return F.pad(x, (0, p - 1, 0, p - 1))
    if x.dim() != 4:
        raise ValueError(f'images are a batch (B, C, H, W), got the shape {tuple(x.shape)}')
    if x.shape[2] % p or x.shape[3] % p:
        return F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p))
    return x


class PatchMerging(nn.Module):
    """Halve the resolution: concatenate 2x2 tokens, Linear(4C, 2C), LayerNorm (V2 order)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., H, W, C) -> (..., ceil(H / 2), ceil(W / 2), 2C)."""
        return self.norm(linear(self.reduction, _join_neighbours(x)))


@fx_leaf
def _join_neighbours(x: Tensor) -> Tensor:
    """(..., H, W, C) -> (..., ceil(H / 2), ceil(W / 2), 4C)."""
    *others, h, w, c = x.shape
    height, width = (h + 1) // 2, (w + 1) // 2
    if torch.compiler.is_compiling():
        # One graph for all sizes, odd and even.
        x = F.pad(x, (0, 0, 0, 1, 0, 1))
        for axis, side in ((-3, height), (-2, width)):
            x = x.index_select(axis, torch.arange(2 * side, device=x.device))
    elif h % 2 or w % 2:
        x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
    # Official order of the four: top left, bottom left, top right, bottom right.
    x = x.reshape(*others, height, 2, width, 2, c)
    return x.transpose(-4, -3).transpose(-3, -2).flatten(-3)
