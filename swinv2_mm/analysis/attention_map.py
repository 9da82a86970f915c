"""Compute and draw attention maps: the attention of a pixel's token over its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import WindowAttention
from swinv2_mm.core.window_partition import Size, WindowGrid

from .canvas import new_figure
from .layers import Layer, block_at, name_of

_PANEL_INCHES = 2.9
_PANELS_PER_LINE = 4
_QUERY_COLOUR = '#D55E00'


class AttentionMap(NamedTuple):
    """The attention of one token.

    Attributes:
        layer: Stage and block.
        grid: The windows of that block.
        query: Row and column of the token.
        weights: (heads, H, W), NaN outside of the token's window; in main memory.
        stride_px: Side of a token.
    """

    layer: Layer
    grid: WindowGrid
    query: Size
    weights: Tensor
    stride_px: int


@torch.no_grad()
def attention_maps(
    backbone: SwinTransformerV2, image: Tensor, *, pixel: Size, layers: Sequence[Layer]
) -> list[AttentionMap]:
    """Return the attention of the token that holds a pixel, in several blocks.

    Args:
        pixel: Row and column, in pixels of ``image``.

    Shapes:
        image: (1, in_channels, H_px, W_px)

    Raises:
        ValueError: If the pixel is outside of the image.
    """
    if not all(0 <= at < side for at, side in zip(pixel, image.shape[2:], strict=True)):
        height, width = image.shape[2:]
        raise ValueError(f'pixel {pixel[1]},{pixel[0]} is outside of the {width} x {height} image')
    found: dict[Layer, AttentionMap] = {}

    def hook_for(layer: Layer) -> object:
        stride = backbone.patch_embed.proj.stride[0] * 2 ** layer[0]
        query = (pixel[0] // stride, pixel[1] // stride)

        def hook(attention: WindowAttention, inputs: tuple[Tensor, WindowGrid]) -> None:
            x, grid = inputs
            weights = attention.token_weights(x, grid, token=query)[0].float().cpu()
            found[layer] = AttentionMap(layer, grid, query, weights, stride)

        return hook

    handles = [
        block_at(backbone, layer).attn.register_forward_pre_hook(hook_for(layer))
        for layer in layers
    ]
    try:
        backbone.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name_of(layer) for layer in layers if layer not in found]
    if missing:
        raise ValueError(f'the weights have no output beyond stage {max(backbone.out_indices)}')
    return [found[layer] for layer in layers]


def draw_attention(
    image: Tensor, maps: Sequence[AttentionMap], *, pixel: Size, with_heads: bool, title: str
) -> Figure:
    """Draw the attention over the image, one panel per layer, and per head if wanted.

    Shapes:
        image: (H_px, W_px, 3), in [0, 1]
    """
    panels = [(m, None) for m in maps]
    if with_heads:
        panels = [(m, head) for m in maps for head in (None, *range(len(m.weights)))]
    columns = min(_PANELS_PER_LINE, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(
        width=0.6 + columns * _PANEL_INCHES,
        height=0.9 + lines * (_PANEL_INCHES + 0.45),
    )
    figure.suptitle(title)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    picture = None
    for ax, (attention, head) in zip(axes, panels, strict=False):
        picture = _panel(ax, image, attention, head=head, pixel=pixel)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    bar = figure.colorbar(picture, ax=list(axes), fraction=0.03, pad=0.01)
    bar.set_label('weight, relative to the largest in the panel')
    return figure


def _panel(
    ax: object, image: Tensor, attention: AttentionMap, *, head: int | None, pixel: Size
) -> object:
    height, width = image.shape[:2]
    weights = attention.weights.mean(0) if head is None else attention.weights[head]
    known = ~weights.isnan()
    largest = weights[known].max()
    # Outside of the window the image stays grey: nothing there can be seen by this token.
    grey = image.mean(-1, keepdim=True).expand(-1, -1, 3)
    ax.imshow((0.6 + 0.4 * grey).numpy(), interpolation='nearest')
    stride = attention.stride_px
    extent = (0, weights.shape[1] * stride, weights.shape[0] * stride, 0)
    ax.imshow(grey.numpy(), extent=(0, width, height, 0), alpha=_to_pixels(known.float(), stride,
              image.shape[:2]), interpolation='nearest')  # fmt: skip
    picture = ax.imshow(
        (weights / largest).numpy(), extent=extent, cmap='viridis', vmin=0, vmax=1,
        alpha=(0.65 * known.float()).numpy(), interpolation='nearest',
    )  # fmt: skip
    top, left = (at * stride for at in attention.query)
    ax.add_patch(
        Rectangle((left, top), stride, stride, fill=False, edgecolor='white', linewidth=2.6)
    )
    ax.add_patch(
        Rectangle((left, top), stride, stride, fill=False, edgecolor=_QUERY_COLOUR, linewidth=1.4)
    )
    ax.plot(pixel[1] + 0.5, pixel[0] + 0.5, '+', color=_QUERY_COLOUR, markersize=7)
    # Shown is the window and as much around it: a small window is lost in a large image.
    ends = []
    for cells in (known.any(0), known.any(1)):
        inside = cells.nonzero() * stride
        first, last = int(inside.min()), int(inside.max()) + stride
        margin = (last - first) // 2
        ends.append((max(0, first - margin), min(len(cells) * stride, last + margin)))
    half = max(end - start for start, end in ends) / 2
    (left, right), (top, bottom) = (((s + e) / 2 - half, (s + e) / 2 + half) for s, e in ends)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect='auto', box_aspect=1)
    ax.set_xticks([])
    ax.set_yticks([])
    shifted = 'shifted' if any(attention.grid.shift) else 'regular'
    who = 'mean of heads' if head is None else f'head {head}'
    ax.set_title(f'{name_of(attention.layer)}, {shifted}, {who}\nlargest {largest:.3f}', fontsize=9)
    return picture


def _to_pixels(tokens: Tensor, stride: int, size: Size) -> object:
    whole = tokens.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
    return whole[: size[0], : size[1]].numpy()
