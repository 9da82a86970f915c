"""Render a report as HTML. Jinja escapes everything that comes from data."""

from __future__ import annotations

import base64
import io
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from swinv2_mm.analysis.canvas import DASHES, new_figure, style, tidy
from swinv2_mm.analysis.curves import Record, default_keys, draw_curves, series
from swinv2_mm.datasets.image_files import read_image
from swinv2_mm.datasets.palette import Colour, text_colour

from .findings import Example, Findings, Shape, Side

_LONGER_SIDE_PX = 480
_MOST_CONFUSED = 25
_MOST_CURVES = 8
_MOST_PAIRS = 10
_LONGEST_NAME = 24
# Lines of text that a picture is wide, and width of a letter in lines.
_LINES = 20
_LETTER = 0.55
_GRID = '#e6e6e6'  # as ``canvas.tidy`` draws it
_SEED = 0

Colours = Sequence[Colour]


def as_svg(figure: Figure) -> Markup:
    """Return a figure as an SVG element that takes the width it is given."""
    stream = io.StringIO()
    figure.savefig(stream, format='svg', metadata={'Date': None}, transparent=True)
    # Light and dark: what is black takes the colour of the text around it.
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


def precision_figure(
    findings: Findings, *, classes: Sequence[str], colours: Sequence[str]
) -> Markup | None:
    """Draw precision over recall of the classes with the most to find, in their colours."""
    if not findings.curves:
        return None
    labels = sorted(findings.curves, key=lambda label: -findings.rows[label][0])[:_MOST_CURVES]
    with style():
        figure = new_figure(width=6.4, height=4.6)
        ax = figure.subplots()
        for number, label in enumerate(sorted(labels)):
            recall, precision = findings.curves[label]
            ax.plot(recall, precision, label=_short(classes[label]), drawstyle='steps-post',
                    linewidth=1.3, color=colours[label],
                    linestyle=DASHES[number % len(DASHES)])  # fmt: skip
        ax.set_xlim(0, 1.01)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel('recall')
        ax.set_ylabel('precision')
        tidy(ax)
        figure.legend(loc='outside right upper', fontsize=9)
        return as_svg(figure)


def _short(name: str) -> str:
    # matplotlib leaves labels out that begin with an underscore.
    name = name if not name.startswith('_') else f' {name}'
    return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…'


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


def chosen(examples: Sequence[Example], *, number: int) -> list[tuple[Example, str]]:
    """Choose the worst, random and the best examples, each with the group that it is in."""
    order = sorted(range(len(examples)), key=lambda i: examples[i].score)
    worst = order[: min(number, (len(order) + 1) // 2)]
    best = [i for i in reversed(order) if i not in worst][:number]
    rest = [i for i in order if i not in worst and i not in best]
    picked = random.Random(_SEED).sample(rest, min(number, len(rest)))
    groups = (('worst', worst), ('random', picked), ('best', best))
    return [(examples[i], group) for group, indices in groups for i in indices]


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def _thumbnail(path: str) -> tuple[str, tuple[int, int]]:
    image = Image.fromarray(read_image(path)[:, :, ::-1])
    size = image.size
    image.thumbnail((_LONGER_SIDE_PX, _LONGER_SIDE_PX))
    stream = io.BytesIO()
    image.save(stream, 'JPEG', quality=85)
    return _data_uri(stream.getvalue(), 'jpeg'), size


@dataclass(frozen=True)
class _Label:
    """Name and score of an object on its picture, in pixels of the picture."""

    text: str
    x: float
    y: float
    width: float
    height: float
    ink: str

    def overlaps(self, other: _Label) -> bool:
        """Return whether two labels share a pixel."""
        return (
            abs(self.x + self.width / 2 - other.x - other.width / 2) * 2 < self.width + other.width
            and abs(self.y - other.y) < self.height
        )


def _labels(
    shapes: Sequence[Shape], *, size: tuple[int, int], classes: Sequence[str], colours: Colours
) -> list[_Label | None]:
    """Place the label of each shape in the picture so that none overlaps another.

    The most certain come first; ``None`` for those without a free place.
    """
    width, height = size
    line = width / _LINES
    placed: dict[int, _Label] = {}
    for at in sorted(range(len(shapes)), key=lambda at: -shapes[at].score):
        shape = shapes[at]
        text = _short(classes[shape.label]) + (f' {shape.score:.2f}' if shape.score < 1 else '')
        wide = (len(text) * _LETTER + 0.5) * line
        left, top, _, bottom = shape.box
        x = min(max(left, 0), max(width - wide, 0))
        ink = f'#{bytes(text_colour(colours[shape.label])).hex()}'
        for y in (top, top - line, bottom - line, bottom):
            label = _Label(text, x, min(max(y, 0), max(height - line, 0)), wide, line, ink)
            if not any(label.overlaps(other) for other in placed.values()):
                placed[at] = label
                break
    return [placed.get(at) for at in range(len(shapes))]


def _card(
    example: Example, group: str, *, classes: Sequence[str], colours: Colours
) -> dict[str, Any]:
    image, (width, height) = _thumbnail(example.path)
    height, width = example.size if all(example.size) else (height, width)

    def shown(title: str, side: Side) -> dict[str, Any]:
        overlay = _data_uri(side.label_map, 'png') if side.label_map else ''
        labels = _labels(side.shapes, size=(width, height), classes=classes, colours=colours)
        shapes = list(zip(side.shapes, labels, strict=True))
        return {'title': title, 'words': side.words, 'shapes': shapes, 'overlay': overlay}

    return {
        'name': Path(example.path).name,
        'group': group,
        'score': example.score,
        'labels': ' '.join(map(str, sorted(example.labels))),
        'image': image,
        'width': width,
        'height': height,
        'missed': example.missed,
        'sides': [shown(title, side) for title, side in example.sides.items()],
    }


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
        precision=precision_figure(findings, classes=classes, colours=shown['colours']),
        pairs=confused_pairs(findings),
        confusion=confusion_table(findings),
        **shown,
    )


def picture_section(
    findings: Findings,
    examples: Sequence[tuple[Example, str]],
    *,
    classes: Sequence[str],
    class_colours: Colours,
) -> dict[str, Any]:
    """Return what ``pictures.html`` shows.

    Args:
        findings: Of which the pictures are.
        examples: Each with its group.
        classes: Names.
        class_colours: One per class.
    """
    cards = [
        _card(example, group, classes=classes, colours=class_colours) for example, group in examples
    ]
    return {
        'findings': findings,
        'cards': cards,
        'groups': list(dict.fromkeys(card['group'] for card in cards)),
        'classes': classes,
        'seen': sorted({int(label) for card in cards for label in card['labels'].split()}),
        'colours': [f'#{bytes(colour).hex()}' for colour in class_colours],
    }


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
