"""Attention over the whole map, as in the neck of HTC++, for maps whose size is left open."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_mm.core.attention.prologue import bounded_scale, cosine_operands, merge_heads
from swinv2_mm.core.window_partition import WindowGrid
from swinv2_mm.models.global_attention import GlobalAttentionNeck

from .decisions import pixels


def whole_map(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Attend within a window that is the map; a backend, see ``swinv2_mm.core.attention.eager``.

    The bias of each pair of tokens is looked up by an index: views, which other backends take,
    need a window of known size.
    """
    height, width = qkv.shape[1:3]
    scale = bounded_scale(logit_scale, dtype=qkv.dtype)
    q, k, v = (x[:, 0, 0] for x in cosine_operands(qkv[:, None, :, None], scale=scale))
    row, column = pixels(height, width)
    num_rows, num_columns = torch.full((), height), torch.full((), width)
    offset = (row[:, None] - row + num_rows - 1) * (2 * num_columns - 1)
    offset = offset + column[:, None] - column + num_columns - 1
    out = F.scaled_dot_product_attention(q, k, v, bias[:, offset][None], scale=1.0)
    return merge_heads(out[None, :, None, None], window=(height, width))[:, 0, :, 0]


def replace_global_attention(model: nn.Module) -> None:
    """Let the blocks before a neck attend by ``whole_map``."""
    for module in model.modules():
        if isinstance(module, GlobalAttentionNeck):
            module.block.attn.backend = whole_map
