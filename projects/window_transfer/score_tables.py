"""Write the scores of a study as a table, CSV, JSON and a plot."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swinv2_mm.atomic_write import atomic_write

from .plan import Cell, Pair, Study

Scores = Mapping[Cell, float]

NAMES = {
    'table': 'table, bicubic',
    'linear_cpb': 'linear-spaced CPB',
    'log_cpb': 'log-spaced CPB',
}
# Okabe and Ito's colours for all kinds of sight; marker and dashes tell the lines apart in grey.
_STYLES = {
    'table': {'color': '#D55E00', 'marker': 's', 'linestyle': ':'},
    'linear_cpb': {'color': '#0072B2', 'marker': '^', 'linestyle': '--'},
    'log_cpb': {'color': '#009E73', 'marker': 'o', 'linestyle': '-'},
}


def seeds_of(scores: Scores, *, kind: str, bias: str, pair: Pair) -> list[float]:
    """Return the scores in percent of one place in the table, one per finished seed."""
    return [
        score
        for cell, score in scores.items()
        if (cell.kind, cell.bias, cell.pair) == (kind, bias, pair)
    ]


def spread(values: list[float]) -> float | None:
    """Return the standard deviation over seeds, if there are several."""
    return statistics.stdev(values) if len(values) > 1 else None


def sampling_error(percent: float, *, num_images: int) -> float:
    """Return one standard error of an accuracy, in points, that comes from few test images."""
    rate = percent / 100
    return 100 * math.sqrt(rate * (1 - rate) / num_images)


def table_rows(study: Study, scores: Scores) -> list[list[str]]:
    """Return the paper's table 1: a row per bias, "without / with" fine-tuning in the cells."""

    def text(kind: str, bias: str, pair: Pair) -> str:
        values = seeds_of(scores, kind=kind, bias=bias, pair=pair)
        if not values:
            return '-'
        deviation = spread(values)
        plus_minus = '' if deviation is None else f' ± {deviation:.1f}'
        return f'{statistics.mean(values):.1f}{plus_minus}'

    rows = [['position bias', *(f'{p.resolution_px} px, w{p.window}' for p in study.pairs)]]
    for bias in study.biases:
        row = [NAMES[bias], text('test', bias, study.pairs[0])]
        for pair in study.pairs[1:]:
            without = text('test', bias, pair)
            with_tuning = f' / {text("tune", bias, pair)}' if study.fine_tune_epochs else ''
            row.append(without + with_tuning)
        rows.append(row)
    return rows


def notes(study: Study, scores: Scores) -> list[str]:
    """Describe the scores of the table and their standard error."""
    images = study.images
    lines = [
        f'Top-1 accuracy in % on {images.num_val} images of {len(images.classes)} classes '
        f'(always the most frequent class: {images.chance_percent:.1f}), trained once at '
        f'{study.pairs[0]} for {_epochs(study.epochs)}; elsewhere without'
        + (f' / with {_epochs(study.fine_tune_epochs)} of' if study.fine_tune_epochs else '')
        + ' fine-tuning.'
    ]
    if scores:
        middle = statistics.median(scores.values())
        error = sampling_error(middle, num_images=images.num_val)
        lines.append(
            f'One standard error from the number of test images alone is {error:.1f} points '
            f'at {middle:.0f} %.'
        )
    if len(study.seeds) > 1:
        lines.append(f'Mean ± standard deviation over {len(study.seeds)} seeds.')
    return lines


def markdown(study: Study, scores: Scores) -> str:
    """Return the table and its notes as Markdown."""
    head, *rows = table_rows(study, scores)
    lines = [head, ['---'] * len(head), *rows]
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return table + '\n\n' + '\n'.join(notes(study, scores)) + '\n'


def write_numbers(study: Study, scores: Scores, *, folder: Path) -> None:
    """Write ``results.csv`` (one row a score), ``results.json`` (with means) and ``table.md``."""
    fields = ('bias', 'seed', 'resolution_px', 'window', 'fine_tuned', 'top1_percent')
    lines = [
        (c.bias, c.seed, c.pair.resolution_px, c.pair.window, int(c.kind == 'tune'), score)
        for c, score in scores.items()
    ]
    with (folder / 'results.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        writer.writerows(lines)
    means = []
    for bias in study.biases:
        for pair in study.pairs:
            for kind in ('test', 'tune'):
                values = seeds_of(scores, kind=kind, bias=bias, pair=pair)
                if values:
                    means.append(
                        {
                            'bias': bias,
                            'resolution_px': pair.resolution_px,
                            'window': pair.window,
                            'fine_tuned': kind == 'tune',
                            'num_seeds': len(values),
                            'mean_percent': statistics.mean(values),
                            'deviation_percent': spread(values),
                            'sampling_error_percent': sampling_error(
                                statistics.mean(values), num_images=study.images.num_val
                            ),
                        }
                    )
    last = Cell('tune', study.biases[0], study.seeds[0], study.pairs[-1])
    content = {
        'settings': study.settings(last),
        'pairs': [str(pair) for pair in study.pairs],
        'biases': study.biases,
        'seeds': study.seeds,
        'chance_percent': study.images.chance_percent,
        'means': means,
        'scores': [dict(zip(fields, line, strict=True)) for line in lines],
    }
    atomic_write(folder / 'results.json', json.dumps(content, indent=2) + '\n')
    atomic_write(folder / 'table.md', markdown(study, scores))


def draw(study: Study, scores: Scores, *, path: Path) -> None:
    """Draw accuracy over resolution, without and with fine-tuning side by side."""
    panels = [('test', 'as trained')]
    if study.fine_tune_epochs:
        panels.append(('tune', f'after {_epochs(study.fine_tune_epochs)} of fine-tuning'))
    figure = Figure(figsize=(1 + 4.6 * len(panels), 4.4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (kind, title) in zip(axes, panels, strict=True):
        for number, bias in enumerate(study.biases):
            # Side by side: equal scores would hide each other.
            shift = 0.05 * (number - (len(study.biases) - 1) / 2)
            points = []
            for place, pair in enumerate(study.pairs):
                values = seeds_of(scores, kind='test' if not place else kind, bias=bias, pair=pair)
                if values:
                    points.append((place + shift, statistics.mean(values), spread(values) or 0))
            if points:
                x, y, error = zip(*points, strict=True)
                bars = error if len(study.seeds) > 1 else None
                ax.errorbar(
                    x, y, bars, label=NAMES[bias], capsize=3, linewidth=2, markersize=7,
                    **_STYLES[bias],
                )  # fmt: skip
        ax.axhline(study.images.chance_percent, color='0.5', linewidth=1, label='chance')
        ticks = [f'{p.resolution_px} px\nwindow {p.window}' for p in study.pairs]
        ticks[0] += '\n(trained here)'
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set_title(title)
        ax.grid(axis='y', color='0.9')
        ax.spines[['top', 'right']].set_visible(False)
    axes[0].set_ylabel('top-1 accuracy in %')
    axes[0].legend(frameon=False)
    name = '/'.join(study.images.root.parts[-2:])
    figure.suptitle(f'Window transfer on {name}, trained once at {study.pairs[0]}')
    figure.savefig(path, dpi=150)


def _epochs(number: int) -> str:
    return f'{number} epoch{"s" if number > 1 else ""}'
