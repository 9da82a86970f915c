"""Report what happened to every entry of a checkpoint when it was loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from swinv2_mm.core.numerics import NumericsName
from swinv2_mm.core.window_partition import Size
from swinv2_mm.errors import printable

# Names in a message, and letters of each.
_NUM_SHOWN = 3
_MOST_LETTERS = 120


@dataclass(frozen=True)
class LoadReport:
    """The outcome of ``load_pretrained``; it accounts for every name of the file.

    Attributes:
        layout: Name of the layout that the weights came in.
        loaded: Parameters that were set: those of the backbone by their names in it, those of
            a classification head by their names in the whole model.
        renamed: Names in the file that are not the model's, each with the parameters that
            were made of it.
        dropped: Names in the file that were not used, each with the reason.
        missing: Parameters of the model that kept their values, each with the reason.
        adapted: Parameters whose values were changed to fit, each with what was done.
        unexpected: Names that nothing explains. Loading raises on them, so this is empty
            unless the report was built by hand.
        pretrained_window_sizes: Window per stage that the position bias was trained at.
        numerics: Numerics of the model now; see ``SwinTransformerV2``.
    """

    layout: str
    loaded: tuple[str, ...]
    renamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    adapted: Mapping[str, str] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    pretrained_window_sizes: tuple[Size, ...] = ()
    numerics: NumericsName = 'official'

    def __str__(self) -> str:
        windows = ', '.join(format_window(window) for window in self.pretrained_window_sizes)
        trained = f' trained at windows {windows}' if windows else ''
        lines = [
            f'{len(self.loaded)} parameters loaded from {self.layout} weights{trained}'
            + (f'; {len(self.renamed)} names translated' if self.renamed else '')
        ]
        if self.numerics != 'official':
            lines.append(f'  numerics: {self.numerics}')
        lines += _by_reason('dropped', self.dropped)
        lines += _by_reason('missing', self.missing)
        lines += _by_reason('adapted', self.adapted)
        if self.unexpected:
            lines.append(f'  unexpected: {shortened(self.unexpected)}')
        return printable('\n'.join(lines))


def format_window(window: Size) -> str:
    """Format a window as 8, or as 8x12 if its sides differ."""
    height, width = window
    return str(height) if height == width else f'{height}x{width}'


def shortened(names: tuple[str, ...] | list[str]) -> str:
    """Join the first names and say how many more there are."""
    more = len(names) - _NUM_SHOWN
    shown = (printable(name, num_letters=_MOST_LETTERS) for name in names[:_NUM_SHOWN])
    return ', '.join(shown) + (f' and {more} more' if more > 0 else '')


def _by_reason(title: str, reasons: Mapping[str, str]) -> list[str]:
    names = defaultdict(list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return [f'  {title}, {reason}: {shortened(group)}' for reason, group in names.items()]
