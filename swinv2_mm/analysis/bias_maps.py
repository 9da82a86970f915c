"""Compute and draw learnt position biases (paper figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from swinv2_mm.checkpoint.load_report import format_window
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.window_partition import Size, WindowGrid

from .canvas import new_figure
from .layers import Layer, block_at, name_of

_PANEL_INCHES = 1.15
_HEADS_PER_LINE = 8
_LETTER_INCHES = 0.1
_TITLE = 'Position bias by offset of the key from the query (in the middle)'


class BiasMaps(NamedTuple):
    """The biases of one layer at one window.

    Attributes:
        source: Which weights they are of.
        layer: Stage and block.
        window: In tokens.
        maps: (heads, 2Mh - 1, 2Mw - 1), by offset of the key from the query; see ``bias_maps``.
    """

    source: str
    layer: Layer
    window: Size
    maps: Tensor


@torch.no_grad()
def bias_maps(
    backbone: SwinTransformerV2, *, layer: Layer, window: Size, source: str = ''
) -> BiasMaps:
    """Evaluate the position bias of a block at any window.

    The paper's figures show the bias that the query in the middle gives to keys around it: the
    table, whose offsets are query minus key, turned by half a turn.

    Shapes:
        maps: (heads, 2Mh - 1, 2Mw - 1), the query in the middle
    """
    grid = WindowGrid(size=window, window=window, shift=(0, 0), nominal_window=window)
    table = block_at(backbone, layer).attn.eval().bias_table(grid)
    sides = (2 * window[0] - 1, 2 * window[1] - 1)
    return BiasMaps(source, layer, window, table.unflatten(1, sides).flip(1, 2))


def draw_bias_maps(groups: Sequence[BiasMaps], *, heads: Sequence[int] | None = None) -> Figure:
    """Draw a line of panels per group, one panel per head.

    Groups of the same layer share a scale of colours, so that windows and checkpoints compare;
    layers do not, for their biases differ in size.

    Args:
        heads: Which heads; ``None`` is all. Heads that a layer lacks are left out.
    """
    shown = [[h for h in heads or range(len(g.maps)) if h < len(g.maps)] for g in groups]
    num_lines = [max(1, -(-len(numbers) // _HEADS_PER_LINE)) for numbers in shown]
    columns = max(2, min(_HEADS_PER_LINE, max(map(len, shown))))
    # Titles may be wider than the panels.
    titles = [_TITLE, *map(_title, groups)]
    figure = new_figure(
        width=max(2.2 + columns * _PANEL_INCHES, 0.3 + _LETTER_INCHES * max(map(len, titles))),
        height=0.9 + sum(0.35 + 1.2 * _PANEL_INCHES * n for n in num_lines),
    )
    figure.suptitle(_TITLE)
    parts = figure.subfigures(len(groups), 1, height_ratios=num_lines, squeeze=False)[:, 0]
    for part, group, numbers, lines in zip(parts, groups, shown, num_lines, strict=True):
        part.suptitle(_title(group), x=0.01, ha='left', fontsize=10)
        axes = part.subplots(lines, columns, squeeze=False)
        rivals = [g.maps for g in groups if g.layer == group.layer]
        lowest, highest = min(m.min() for m in rivals), max(m.max() for m in rivals)
        panels = axes.flatten()
        picture = None
        for ax, head in zip(panels, numbers, strict=False):
            mh, mw = group.window
            # An offset of k sits at the pixel k: half a pixel more on each side.
            extent = (0.5 - mw, mw - 0.5, mh - 0.5, 0.5 - mh)
            picture = ax.imshow(
                group.maps[head].float().numpy(), cmap='viridis', extent=extent,
                vmin=float(lowest), vmax=float(highest), interpolation='nearest', aspect='auto',
            )  # fmt: skip
            ax.set_box_aspect(mh / mw)
            ax.set_title(f'head {head}', fontsize=9, pad=3)
            ax.set_xticks(sorted({1 - mw, 0, mw - 1}))
            ax.set_yticks(sorted({1 - mh, 0, mh - 1}))
            ax.tick_params(labelsize=7, length=2)
        for ax in panels[len(numbers) :]:
            ax.set_axis_off()
        if picture is not None:
            bar = part.colorbar(picture, ax=axes, fraction=0.06, pad=0.01)
            bar.ax.tick_params(labelsize=8)
            # Ticks that depend on the height would change after room was made for them.
            bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    return figure


def _title(group: BiasMaps) -> str:
    words = [f'stage.block {name_of(group.layer)}', f'window {format_window(group.window)}']
    return ', '.join([*([group.source] if group.source else []), *words])
