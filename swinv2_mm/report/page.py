"""Render a report as HTML. Jinja escapes everything that comes from data."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from swinv2_mm.analysis.canvas import DASHES, line_style, new_figure, style, tidy
from swinv2_mm.analysis.curves import Record, default_keys, draw_curves, series
from swinv2_mm.datasets.palette import Colour

from .findings import Findings
from .pictures import chosen, picture_section, shortened

_MOST_CONFUSED = 25
_MOST_CURVES = 20
_MOST_PAIRS = 10
_NUM_EXAMPLES = 6
_MOST_BYTES = 5_000_000
_GRID = '#e6e6e6'  # as ``canvas.tidy`` draws it


def as_svg(figure: Figure) -> Markup:
    """Return a figure as an SVG element that takes the width it is given."""
    stream = io.StringIO()
    figure.savefig(stream, format='svg', metadata={'Date': None}, transparent=True)
    # For light and dark pages, black becomes the colour of the surrounding text.
    text = stream.getvalue().replace('#000000', 'currentColor').replace(_GRID, 'var(--line)')
    text = text[text.index('<svg') :]
    # Groups of several figures have the same names, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', '<g', text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', text, count=1)
    return Markup(re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', text, count=1))


def curve_figures(runs: Mapping[str, Sequence[Record]]) -> list[Markup]:
    """Draw each main scalar of trainings on its own, so that a phone can stack them.

    One value, such as that of a single validation, makes no curve.
    """
    keys = dict.fromkeys(
        key
        for records in runs.values()
        for key in default_keys(records)
        if len(series(records, key)[0]) > 1
    )
    with style():
        return [as_svg(draw_curves(runs, keys=[key])) for key in keys]


def precision_figures(
    findings: Findings, *, classes: Sequence[str], colours: Sequence[str]
) -> dict[str, Markup]:
    """Draw precision over recall of the classes with the most to find, in their colours."""
    figures = {}
    for title, curves in findings.curves.items():
        labels = sorted(curves, key=lambda label: -findings.rows[label][0])[:_MOST_CURVES]
        lines = [(shortened(classes[k]), *curves[k], colours[k]) for k in sorted(labels)]
        figures[title] = _precision_figure(lines)
    return figures


def _precision_figure(lines: Sequence[tuple[str, np.ndarray, np.ndarray, str]]) -> Markup:
    with style():
        figure = new_figure(width=6.4, height=4.6)
        ax = figure.subplots()
        for number, (name, recall, precision, colour) in enumerate(lines):
            ax.plot(recall, precision, label=name, drawstyle='steps-post',
                    linewidth=1.3, color=colour,
                    linestyle=DASHES[number % len(DASHES)])  # fmt: skip
        ax.set_xlim(0, 1.01)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel('recall')
        ax.set_ylabel('precision')
        tidy(ax)
        figure.legend(loc='outside right upper', fontsize=9)
        return as_svg(figure)


def reliability_figure(findings: Findings) -> Markup | None:
    """Draw how often predictions are right over their score; dots grow with their number."""
    if findings.reliability is None or not findings.reliability.counts.any():
        return None
    scores, right, shares = findings.reliability.points()
    with style():
        figure = new_figure(width=6.4, height=4.6)
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color='#000000', linewidth=0.8, linestyle=':')
        ax.plot(scores, right, linewidth=1.3, **line_style(0))
        ax.scatter(scores, right, s=16 + 240 * shares, color=line_style(0)['color'])
        ax.set_xlim(0, 1.02)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel('score')
        ax.set_ylabel('share that is right')
        tidy(ax)
        return as_svg(figure)


def confusion_table(findings: Findings) -> dict[str, Any]:
    """Return the confusion matrix in % of each row, of the most confused classes if many."""
    matrix, names = findings.confusion, findings.confusion_names
    keep = np.arange(len(names))
    if len(names) > _MOST_CONFUSED:
        wrong = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        keep = np.sort(np.argsort(-wrong, kind='stable')[:_MOST_CONFUSED])
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    share = (100 * matrix / totals)[np.ix_(keep, keep)]
    return {
        'names': [names[k] for k in keep],
        'rows': [[(round(float(v)), int(matrix[i, j])) for j, v in zip(keep, line, strict=True)]
                 for i, line in zip(keep, share, strict=True)],
        'left_out': len(names) - len(keep),
    }  # fmt: skip


def confused_pairs(findings: Findings) -> list[dict[str, Any]]:
    """List the pairs of classes that are confused most, with the share of what is there."""
    number = len(findings.rows)  # without what a detector misses or makes up
    matrix = findings.confusion[:number, :number].copy()
    totals = np.maximum(findings.confusion.sum(1), 1)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind='stable')[:_MOST_PAIRS]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    names = findings.confusion_names
    return [
        {'truth': names[i], 'label': int(i), 'guess': names[j], 'count': int(matrix[i, j]),
         'share': 100 * matrix[i, j] / totals[i]}
        for i, j in pairs if matrix[i, j]
    ]  # fmt: skip


def fitted(render: Callable[[int], str], *, number: int | None) -> str:
    """Render a page.

    Args:
        render: Takes the number of examples per group.
        number: Examples per group; ``None`` is up to 6, fewer if the page exceeds 5 MB.
    """
    if number is not None:
        return render(number)
    for number in range(_NUM_EXAMPLES, 0, -1):
        page = render(number)
        if len(page.encode()) <= _MOST_BYTES:
            break
    return page


def render(
    *,
    title: str,
    facts: Mapping[str, Mapping[str, str]],
    config: str,
    records: Sequence[Record],
    findings: Findings,
    classes: Sequence[str],
    class_colours: Sequence[Colour],
    number_per_group: int,
) -> str:
    """Return the page.

    Args:
        title: Name of the run.
        facts: Tables of names and values, by their heads.
        config: Text of the config.
        records: Scalars of the training.
        findings: Results.
        classes: Names.
        class_colours: One per class.
        number_per_group: How many of the best, the worst and random examples.
    """
    shown = picture_section(
        findings,
        chosen(findings.examples, number=number_per_group),
        classes=classes,
        class_colours=class_colours,
    )
    return fill_template(
        'page.html',
        title=title,
        facts=facts,
        config=config,
        curves=curve_figures({title: records}),
        precision=precision_figures(findings, classes=classes, colours=shown['colours']),
        num_curves=_MOST_CURVES,
        reliability=reliability_figure(findings),
        pairs=confused_pairs(findings),
        confusion=confusion_table(findings),
        **shown,
    )


def fill_template(name: str, **values: Any) -> str:
    """Return a page from its template in this folder; everything in it is escaped."""
    environment = Environment(
        loader=PackageLoader('swinv2_mm.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values)
