"""Blocks, and stages of them (paper figure 1, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Backend, WindowAttention, is_built_in
from .attention.window_attention import Similarity
from .large_maps import add_in_parts, is_large
from .linear import linear, linear_gelu
from .patches import PatchMerging
from .position_bias import PositionBias
from .tracing import fx_leaf, is_called_as_made, is_plain, is_traced
from .window_partition import Size, Tiling, WindowGrid, grid_of

NormOrder = Literal['res_post', 'pre', 'sandwich']
_MLP_RATIO = 4
_INIT_STD = 0.02


def draw_layers(root: nn.Module) -> None:
    """Draw all linear layers in ``root`` as the official code does, the others as torch does."""
    for module in root.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=_INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.Conv2d, nn.Conv3d)):
            module.reset_parameters()


class DropPath(nn.Module):
    """Drop a residual branch for whole images at random (stochastic depth).

    Args:
        drop_rate: Probability of dropping, in [0, 1).
    """

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape; kept images are scaled so that the expectation is unchanged."""
        if not self.training or self.drop_rate == 0:
            return x
        return _drop_images(x, keep_rate=1 - self.drop_rate)


@fx_leaf
def _drop_images(x: Tensor, *, keep_rate: float) -> Tensor:
    kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep_rate)
    return x * (kept / keep_rate)


class Mlp(nn.Module):
    """The feed-forward branch: Linear, GELU, Linear.

    Attributes:
        gelu: Approximation of GELU, as torch takes it; see ``Numerics``.
    """

    gelu: Literal['none', 'tanh'] = 'none'

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, _MLP_RATIO * dim)
        self.fc2 = nn.Linear(_MLP_RATIO * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return linear(self.fc2, linear_gelu(self.fc1, x, approximate=self.gelu))


class SwinBlock(nn.Module):
    """Window attention and MLP, each normalised before it joins the main branch (``res_post``).

    Args:
        attention: The attention branch.
        dim: Channels C.
        shifted: Whether the windows are shifted by half a window.
        drop_path_rate: Probability of dropping a branch.
        with_extra_norm: Whether a LayerNorm on the main branch closes the block (paper 3.6).
        norm_order: ``res_post``; or for comparison (paper table 7) ``pre``, where each branch
            begins with its norm as in Swin V1, or ``sandwich``, with a norm at both ends.
    """

    def __init__(
        self,
        attention: WindowAttention,
        *,
        dim: int,
        shifted: bool,
        drop_path_rate: float,
        with_extra_norm: bool,
        norm_order: NormOrder = 'res_post',
    ) -> None:
        super().__init__()
        self.shifted = shifted
        self.attn = attention
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim) if with_extra_norm else nn.Identity()
        self.drop_path = DropPath(drop_path_rate)
        self.norm_order = norm_order
        if norm_order == 'sandwich':
            self.norm1_in, self.norm2_in = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def reset_parameters(self) -> None:
        """Make the block the identity; linear layers are left to ``draw_layers``.

        With ``pre`` there is no norm at the end of a branch that could: it starts as in Swin V1.
        """
        if self.norm_order != 'pre':
            for norm in (self.norm1, self.norm2):
                nn.init.zeros_(norm.weight)
                nn.init.zeros_(norm.bias)
        self.attn.reset_parameters()

    def forward(self, x: Tensor, grid: WindowGrid) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        if self._takes_parts(x):
            x = self._in_parts(x, grid)
        elif self.norm_order == 'res_post':
            x = x + self.drop_path(self.norm1(self.attn(x, grid)))
            x = x + self.drop_path(self.norm2(self.mlp(x)))
        elif self.norm_order == 'pre':
            x = x + self.drop_path(self.attn(self.norm1(x), grid))
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        else:
            x = x + self.drop_path(self.norm1(self.attn(self.norm1_in(x), grid)))
            x = x + self.drop_path(self.norm2(self.mlp(self.norm2_in(x))))
        return self.norm3(x)

    def _takes_parts(self, x: Tensor) -> bool:
        if not is_large(x) or self.norm_order != 'res_post':
            return False
        attn, mlp = self.attn, self.mlp
        modules = (attn, mlp, self.norm1, self.norm2, self.drop_path)
        return (
            [type(m) for m in modules]
            == [WindowAttention, Mlp, nn.LayerNorm, nn.LayerNorm, DropPath]
            and is_built_in(attn.backend)
            # A hook would see every part.
            and all(is_called_as_made(m) and not m.training for m in modules)
            and all(is_plain(layer) for layer in (attn.proj, mlp.fc1, mlp.fc2))
        )

    def _in_parts(self, x: Tensor, grid: WindowGrid) -> Tensor:
        heads = self.attn.attend(x, grid).contiguous()
        x = add_in_parts(x, heads, lambda rows: self.norm1(linear(self.attn.proj, rows)))
        return add_in_parts(x, x, lambda rows: self.norm2(self.mlp(rows)))


class Stage(nn.Module):
    """Blocks of one resolution and the merging that leads to the next one.

    Args:
        dim: Channels C.
        num_heads: Attention heads.
        window: Sides of a window, in tokens.
        pretrained_window_size: Window that the position bias is, or was, trained at.
        drop_path_rates: One per block; their number is the depth.
        extra_norm_every: See ``Architecture``.
        with_downsample: Whether a ``PatchMerging`` follows.
        with_cp: Whether blocks are recomputed in the backward pass to save memory.
        norm_order: See ``SwinBlock``.
        similarity: See ``WindowAttention``.
    """

    # A ModuleList; the annotation says what it holds.
    blocks: Sequence[SwinBlock]

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window: Size,
        pretrained_window_size: Size,
        position_bias: PositionBias,
        tiling: Tiling,
        drop_path_rates: Sequence[float],
        extra_norm_every: int | None,
        with_downsample: bool,
        with_cp: bool,
        backend: Backend,
        norm_order: NormOrder = 'res_post',
        similarity: Similarity = 'cosine',
    ) -> None:
        super().__init__()
        self.window = window
        self.tiling = tiling
        self.with_cp = with_cp
        blocks = []
        for i, drop_path_rate in enumerate(drop_path_rates):
            attention = WindowAttention(
                dim,
                num_heads=num_heads,
                position_bias=position_bias,
                pretrained_window_size=pretrained_window_size,
                backend=backend,
                similarity=similarity,
            )
            block = SwinBlock(
                attention,
                dim=dim,
                shifted=i % 2 == 1,
                drop_path_rate=drop_path_rate,
                with_extra_norm=extra_norm_every is not None and (i + 1) % extra_norm_every == 0,
                norm_order=norm_order,
            )
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.downsample = PatchMerging(dim) if with_downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks, without the merging: (B, H, W, C) -> (B, H, W, C)."""
        # Saved tensors are out of the reach of tracers and transforms.
        with_cp = self.with_cp and torch.is_grad_enabled() and not is_traced(x)
        for block in self.blocks:
            grid = grid_of(x, window=self.window, shifted=block.shifted, tiling=self.tiling)
            if with_cp:
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        return x
