"""The backbone as a traced graph sees it."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.blocks import PatchEmbed, PatchMerging, Stage
from swinv2_mm.core.window_partition import window_grid
from swinv2_mm.errors import UserError

from .windows import TracedGrid, attend, bias_pairs, trace_axis, trace_mask


class TracedBackbone(nn.Module):
    """A copy of a backbone with fixed position biases, made for ``torch.export``.

    Args:
        backbone: The model; it stays as it is.
        shape_px: Height and width of the images; ``None`` leaves them open.

    Attributes:
        smallest_px: Smallest height and width that an open size may take: in the first stage and
            in those with a single head, torch.export tells one window along an axis from several.

    Raises:
        UserError: If the windows of the backbone depend on a size that is left open.
    """

    def __init__(self, backbone: SwinTransformerV2, *, shape_px: tuple[int, int] | None) -> None:
        super().__init__()
        if shape_px is None and any(stage.tiling != 'fixed' for stage in backbone.layers):
            raise UserError(
                "the windows of tiling='balanced' follow the image size: export with a fixed "
                '--shape instead of --dynamic'
            )
        backbone = copy.deepcopy(backbone).eval().requires_grad_(False)
        backbone.bake_position_bias()
        self.out_indices = backbone.out_indices
        self.patch_embed = backbone.patch_embed
        self.layers = nn.ModuleList()
        patch_px = backbone.patch_embed.proj.stride[0]
        self.smallest_px = tuple(
            max(
                patch_px * 2**i * stage.window[axis] + 1
                for i, stage in enumerate(backbone.layers)
                if i == 0 or backbone.arch.num_heads[i] == 1
            )
            for axis in (0, 1)
        )
        for i, stage in enumerate(backbone.layers[: max(self.out_indices) + 1]):
            size = shape_px and tuple(-(-side // (patch_px * 2**i)) for side in shape_px)
            self.layers.append(_TracedStage(stage, size=size))
        self.norms = nn.ModuleDict(
            {str(i): backbone.get_submodule(f'norm{i}') for i in self.out_indices}
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what ``SwinTransformerV2.forward`` does."""
        x = _embed(x, layer=self.patch_embed)
        outs = []
        for i, stage in enumerate(self.layers):
            if i > 0:
                x = _merge(x, layer=self.layers[i - 1].downsample)
            x = stage(x)
            if i in self.out_indices:
                outs.append(self.norms[str(i)](x).permute(0, 3, 1, 2))
        return tuple(outs)


class _TracedStage(nn.Module):
    """The blocks of a stage; windows, clipped to ``size`` if that is known, are laid once."""

    def __init__(self, stage: Stage, *, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.blocks = stage.blocks
        self.downsample = stage.downsample
        self.nominal_window = self.window = stage.window
        if size is not None:
            grid = window_grid(size, window=stage.window, shifted=False, tiling=stage.tiling)
            self.window = grid.window
        self.register_buffer('pairs', bias_pairs(self.window), persistent=False)
        for block in self.blocks:
            block.attn.backend = attend

    def forward(self, x: Tensor) -> Tensor:
        grids = {}
        for block in self.blocks:
            if block.shifted not in grids:
                grids[block.shifted] = self._grid(x, shifted=block.shifted)
            x = block(x, grids[block.shifted])
        return x

    def _grid(self, x: Tensor, *, shifted: bool) -> TracedGrid:
        lengths = x.shape[1:3]
        shifts = [side // 2 if shifted else 0 for side in self.window]
        if all(isinstance(length, int) for length in lengths):
            sides = list(zip(lengths, self.window, shifts, strict=True))
            if all(length % side == 0 and (length == side or not s) for length, side, s in sides):
                return TracedGrid(self.window, self.nominal_window, self.pairs, None, None)
        rows, columns = (
            trace_axis(length, side=side, shift=shift)
            for length, side, shift in zip(lengths, self.window, shifts, strict=True)
        )
        mask = trace_mask(rows.origins, columns=columns.origins)
        return TracedGrid(self.window, self.nominal_window, self.pairs, (rows, columns), mask)


def _embed(x: Tensor, *, layer: PatchEmbed) -> Tensor:
    """Embed patches. The padding is one that suits any size: the convolution drops the excess."""
    excess = layer.proj.stride[0] - 1
    return layer.norm(layer.proj(F.pad(x, (0, excess, 0, excess))).permute(0, 2, 3, 1))


def _merge(x: Tensor, *, layer: PatchMerging) -> Tensor:
    """Merge 2x2 tokens; a row and a column of zeros stand by for odd sizes."""
    top, left = (2 * torch.arange((side + 1) // 2) for side in x.shape[1:3])
    x = F.pad(x, (0, 0, 0, 1, 0, 1))
    quarters = [
        x.index_select(1, top + i).index_select(2, left + j) for j in (0, 1) for i in (0, 1)
    ]
    return layer.norm(layer.reduction(torch.cat(quarters, dim=-1)))
