"""Record and draw the amplitude of activations over depth (paper figure 2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from torch import Tensor, nn

from swinv2_mm.core import SwinTransformerV2

from .canvas import legend_below, line_style, new_figure, tidy
from .layers import block_at, layers_of, name_of

# What is measured in each block, and how it is called in a legend.
PLACES = {
    'main': 'main branch',
    'attention': 'attention, before it is added',
    'mlp': 'MLP, before it is added',
}


class SignalRecorder:
    """Record the amplitude (root mean square) of activations by forward hooks.

    Over images, tokens and channels; of all passes since the last ``reset``.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = defaultdict(list)
        self.is_active = True

    @contextmanager
    def watching(self, backbone: SwinTransformerV2) -> Iterator[SignalRecorder]:
        """Record what passes through the blocks of a backbone inside of a ``with``."""
        handles = self.attach(backbone)
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def attach(self, backbone: SwinTransformerV2) -> list[torch.utils.hooks.RemovableHandle]:
        """Record from now on; the handles end it."""
        handles = []
        for layer in layers_of(backbone):
            block = block_at(backbone, layer)
            places = {'main': block, 'attention': block.norm1, 'mlp': block.norm2}
            for place, module in places.items():
                hook = self._hook(f'{place}/{name_of(layer)}')
                handles.append(module.register_forward_hook(hook))
        return handles

    def _hook(self, name: str) -> object:
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            if self.is_active:
                # Kept on the device: reading it here would wait for the GPU in every block.
                self._sums[name].append(output.detach().float().square().mean())

        return hook

    def amplitudes(self) -> dict[str, float]:
        """Return the amplitude by place and layer, such as ``main/2.1``, in order of depth."""
        return {
            name: torch.stack(values).mean().sqrt().item() for name, values in self._sums.items()
        }

    def reset(self) -> None:
        """Reset the records."""
        self._sums.clear()


def draw_signal(signals: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw amplitude over depth, one panel per place.

    Args:
        signals: What ``SignalRecorder.amplitudes`` returns, by the name of a model.
    """
    figure = new_figure(width=1 + 4.4 * len(PLACES), height=4.2)
    axes = figure.subplots(1, len(PLACES), sharey=True)
    for ax, place in zip(axes, PLACES, strict=True):
        for number, (model, signal) in enumerate(signals.items()):
            values = [v for name, v in signal.items() if name.startswith(f'{place}/')]
            names = [n.partition('/')[2] for n in signal if n.startswith(f'{place}/')]
            ax.plot(range(len(values)), values, marker='o', markersize=4, label=model,
                    **line_style(number))  # fmt: skip
            if number == 0:
                _mark_stages(ax, names)
        ax.set_yscale('log')
        # Plain numbers: without mathematics, powers of ten would show their source.
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_title(PLACES[place])
        ax.set_xlabel('block, counted through all stages')
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(ax)
    axes[0].set_ylabel('amplitude (root mean square)')
    legend_below(figure, axes[0])
    figure.suptitle('Amplitude of activations by depth')
    return figure


def _mark_stages(ax: object, names: Sequence[str]) -> None:
    """Draw a line before the first block of each later stage."""
    for place, name in enumerate(names):
        if place and name.endswith('.0'):
            ax.axvline(place - 0.5, color='0.8', linewidth=1, zorder=0)
