"""Style and save figures: without a display, colour-blind-safe, atomically."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swinv2_mm.atomic_write import atomic_path
from swinv2_mm.errors import UserError

# Okabe and Ito's colour-blind-safe colours; the dashes tell lines apart in greyscale as well.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
DASHES = ('-', '--', '-.', ':')
SUFFIXES = ('.png', '.svg')

_RC = {
    'font.size': 10,
    'axes.titlesize': 10,
    'figure.titlesize': 12,
    'legend.frameon': False,
    # Names come from files: a $ in them does not begin a formula.
    'text.parse_math': False,
    # Letters stay letters in SVG: small files that can be searched.
    'svg.fonttype': 'none',
    'svg.hashsalt': 'swinv2_mm',
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in the project's style inside of a ``with``."""
    with matplotlib.rc_context(_RC):
        yield


def new_figure(*, width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, laid out so that nothing is clipped."""
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def line_style(number: int) -> dict[str, str]:
    """Return colour and dashes of the line with a number; they repeat only after many."""
    return {
        'color': COLOURS[number % len(COLOURS)],
        'linestyle': DASHES[(number // len(COLOURS) + number % len(COLOURS)) % len(DASHES)],
    }


def tidy(ax: Axes) -> None:
    """Remove redundant spines and ticks and add a light grid."""
    ax.spines[['top', 'right']].set_visible(False)
    ax.grid(axis='y', color='0.9')
    ax.set_axisbelow(True)


def legend_below(figure: Figure, ax: Axes) -> None:
    """Put the legend of one panel below all of them, in as many columns as fit, three at most."""
    handles, labels = ax.get_legend_handles_labels()
    for columns in (3, 2, 1):
        legend = figure.legend(handles, labels, loc='outside lower center', ncols=columns)
        width = legend.get_window_extent().width
        if width <= figure.bbox.width:
            return
        if columns > 1:
            legend.remove()
    figure.set_figwidth(width / figure.dpi)


def check_path(path: Path) -> None:
    """Check, before long work, that a figure can be written.

    Raises:
        UserError: If the suffix is unknown or the folder cannot be made.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f'--out {path}: the name must end in {" or ".join(SUFFIXES)}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {path}: {error.strerror or error}') from error


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the suffix.

    Raises:
        UserError: If the file cannot be written.
    """
    metadata = {'Date': None} if path.suffix.lower() == '.svg' else None
    kind = path.suffix.lower().removeprefix('.')
    with atomic_path(path) as part:
        figure.savefig(part, dpi=150, metadata=metadata, format=kind)
