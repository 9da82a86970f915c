"""Window attention for ``torch.compile`` and export: one graph for maps of every size.

Nothing here asks what the size is: tokens are moved by computed indices and masks are compared, not
looked up. Only whether a window is clipped is decided at trace time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..position_bias import computing_dtype, pairwise_bias
from ..torch_private import is_exporting
from ..window_partition import WindowGrid
from .mask import segment_mask
from .prologue import bounded_scale, copied, cosine_operands, merge_heads


@torch.library.custom_op('swinv2_mm::written', mutates_args=())
def _written(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


@_written.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_written.register_autograd(lambda ctx, d_out: d_out)


def written(x: Tensor) -> Tensor:
    """The same in memory: a compiler would work it out again for each window it is used in."""
    # An exported program must run without this package, and a recorded one is not compiled.
    is_compiled = torch.compiler.is_compiling() and not is_exporting()
    return _written(x) if is_compiled else x


def traced(qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """Run as a backend, see ``eager``."""
    dtype = computing_dtype(qkv)
    (nh, nw), (mh, mw), heads = grid.num_windows, grid.window, logit_scale.numel()
    x = qkv
    for axis, (sources, length) in enumerate(zip(grid.sources(), grid.size, strict=True)):
        # Padding may hold anything: no real token attends to it.
        x = x.index_select(1 + axis, sources.clamp(max=length - 1).to(x.device))
    windows = x.reshape(-1, nh, mh, nw, mw, x.shape[-1])
    q, k, v = cosine_operands(windows, scale=bounded_scale(logit_scale, dtype=dtype))
    ids = grid.segment_ids().to(x.device).reshape(nh, mh, nw, mw)
    ids = written(copied(ids.permute(0, 2, 1, 3)).reshape(nh, nw, 1, mh * mw))
    pairs = written(pairwise_bias(bias.to(dtype), window=grid.window))
    mask = pairs + segment_mask(ids, key=ids, dtype=dtype)
    # Windows count as heads: the mask is that of one image.
    q, k, v = (operand.flatten(1, 3) for operand in (q, k, v))
    mask = mask.flatten(0, 2)[None]
    # These versions ask whether the batch is one.
    if is_exporting() and '2.13' <= torch.__version__ < '2.15':
        mask = mask.expand(qkv.shape[0], -1, -1, -1)
    out = F.scaled_dot_product_attention(q, k, v, mask, scale=1.0).to(qkv.dtype)
    # (B, nH * nW * heads, Mh * Mw, d) -> (B, H, W, C)
    out = merge_heads(out.unflatten(1, (nh, nw, heads))[None], window=grid.window)
    out = out.reshape(qkv.shape[0], nh * mh, nw * mw, qkv.shape[-1] // 3)
    for axis, places in enumerate(grid.places()):
        out = out.index_select(1 + axis, places.to(x.device))
    return out
