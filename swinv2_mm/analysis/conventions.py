"""Count FLOPs by the two conventions behind published figures of SwinV2, a MAC as one FLOP.

They differ by 15 to 34 % on the same network, and neither is what runs (``operations.py``).
"""

from __future__ import annotations

import math

from mmcv.cnn import get_model_complexity_info
from torch import Tensor, nn

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.window_partition import Size, window_grid

from .fake_model import KnownValues


def official_flops(backbone: SwinTransformerV2, *, size_px: Size, num_classes: int) -> float:
    """Evaluate the formula of the official code (the hub's GFLOPs column).

    Counts products with weights, both attention products, and each LayerNorm as one operation
    per element. Leaves out the position bias network, softmax and biases. Two of its terms are
    not what runs: the norm of a merging is taken at half its size, the final norm at four times.
    The extra norms of H and G, which the official code lacks, and padding are not counted.

    Args:
        backbone: Any SwinV2; only its sizes are read.
        size_px: Height and width of the image.
        num_classes: Classes of the linear head; 0 for none.
    """
    maps = _stage_maps(backbone, size_px)
    patch_pixels = backbone.patch_embed.proj.weight[0].numel()
    dim, tokens = backbone.arch.dims[0], math.prod(maps[0])
    flops = tokens * dim * patch_pixels + tokens * dim
    for stage, dim, size in zip(backbone.layers, backbone.arch.dims, maps, strict=True):
        tokens = math.prod(size)
        window_tokens = math.prod(_window(stage, size))
        linears = 12 * dim * dim * tokens
        attention = 2 * window_tokens * dim * tokens
        norms = 2 * dim * tokens
        flops += len(stage.blocks) * (linears + attention + norms)
        if stage.downsample is not None:
            flops += tokens / 4 * 4 * dim * 2 * dim + tokens * dim / 2
    num_features = backbone.arch.dims[-1]
    flops += num_features * math.prod(maps[0]) / 2 ** len(maps)
    return flops + num_features * num_classes


def mmcls_flops(model: nn.Module, *, size_px: Size, backbone: SwinTransformerV2) -> float:
    """Count as the MMClassification 0.x model pages do: mmcv's module hooks, without the head.

    Hooks see Linear, convolution, LayerNorm (two per element), pooling and ReLU modules, the bias
    network among them. They miss the attention products, which are plain function calls, and there
    the q, k, v projections too: ours are modules, so their share is taken away.

    Args:
        model: A fake model of any library with a SwinV2; its ``extract_feat`` is counted.
        size_px: Height and width of the image.
        backbone: The SwinV2 in it.
    """
    with KnownValues():
        flops, _ = get_model_complexity_info(
            _Features(model), (3, *size_px), print_per_layer_stat=False, as_strings=False
        )
    return flops - _qkv_flops(backbone, size_px)


class _Features(nn.Module):
    """Backbone and neck of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple:
        return self.model.extract_feat(images)


def _qkv_flops(backbone: SwinTransformerV2, size_px: Size) -> int:
    return sum(
        len(stage.blocks) * math.prod(size) * stage.blocks[0].attn.qkv.weight.numel()
        for stage, size in zip(backbone.layers, _stage_maps(backbone, size_px), strict=True)
    )


def _stage_maps(backbone: SwinTransformerV2, size_px: Size) -> list[Size]:
    """Height and width of each stage's map, in tokens."""
    patch = backbone.patch_embed.proj.stride[0]
    size = tuple(-(-side // patch) for side in size_px)
    maps = [size]
    for _ in backbone.layers[1:]:
        size = tuple(-(-side // 2) for side in size)
        maps.append(size)
    return maps


def _window(stage: nn.Module, size: Size) -> Size:
    return window_grid(size, window=stage.window, shifted=False, tiling=stage.tiling).window
