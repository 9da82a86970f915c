"""Render a report as HTML. Jinja escapes everything that comes from data."""

from __future__ import annotations

import base64
import io
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from swinv2_mm.analysis.canvas import line_style, new_figure, style, tidy
from swinv2_mm.analysis.curves import Record, default_keys, draw_curves, series
from swinv2_mm.datasets.image_files import read_image
from swinv2_mm.datasets.palette import Colour

from .findings import Example, Findings, Side

_LONGER_SIDE_PX = 480
_MOST_CONFUSED = 25
_MOST_CURVES = 8
_SEED = 0


def as_svg(figure: Figure) -> Markup:
    """Return a figure as an SVG element that takes the width it is given."""
    stream = io.StringIO()
    figure.savefig(stream, format='svg', metadata={'Date': None})
    text = stream.getvalue()
    text = text[text.index('<svg') :]
    # Groups of several figures have the same names, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', '<g', text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', text, count=1)
    return Markup(re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', text, count=1))


def curve_figures(records: Sequence[Record], *, name: str) -> list[Markup]:
    """Draw each main scalar of a training on its own, so that a phone can stack them.

    One value, such as that of a single validation, makes no curve.
    """
    keys = [key for key in default_keys(records) if len(series(records, key)[0]) > 1]
    with style():
        return [as_svg(draw_curves({name: records}, keys=[key])) for key in keys]


def precision_figure(findings: Findings) -> Markup | None:
    """Draw precision over recall: the mean, and the classes with the most to find."""
    if not findings.curves:
        return None
    sizes = {name: row[0] for name, row in zip(findings.confusion_names, findings.rows)}  # noqa: B905
    names = sorted(findings.curves, key=lambda name: -sizes.get(name, 0))[:_MOST_CURVES]
    with style():
        figure = new_figure(width=6.4, height=4.6)
        ax = figure.subplots()
        for number, name in enumerate(names):
            recall, precision = findings.curves[name]
            ax.plot(recall, precision, label=_short(name), drawstyle='steps-post',
                    linewidth=1.3, **line_style(number))  # fmt: skip
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
    return name if len(name) <= 24 else f'{name[:23]}…'


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


def chosen(examples: Sequence[Example], *, number: int) -> list[tuple[Example, str]]:
    """Choose the best, the worst and random examples, each with the group that it is in."""
    order = sorted(range(len(examples)), key=lambda i: examples[i].score)
    worst = order[: min(number, (len(order) + 1) // 2)]
    best = [i for i in reversed(order) if i not in worst][:number]
    rest = [i for i in order if i not in worst and i not in best]
    picked = random.Random(_SEED).sample(rest, min(number, len(rest)))
    groups = (('best', best), ('worst', worst), ('random', picked))
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


def _card(example: Example, group: str) -> dict[str, Any]:
    image, (width, height) = _thumbnail(example.path)
    height, width = example.size if all(example.size) else (height, width)

    def half(title: str, side: Side) -> dict[str, Any]:
        overlay = _data_uri(side.label_map, 'png') if side.label_map else ''
        return {'title': title, 'side': side, 'overlay': overlay}

    return {
        'name': Path(example.path).name,
        'group': group,
        'score': example.score,
        'labels': ' '.join(map(str, sorted(example.labels))),
        'image': image,
        'width': width,
        'height': height,
        'halves': [half('ground truth', example.truth), half('prediction', example.prediction)],
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
    environment = Environment(
        loader=PackageLoader('swinv2_mm.report', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cards = [_card(*pair) for pair in chosen(findings.examples, number=number_per_group)]
    seen = {int(label) for card in cards for label in card['labels'].split()}
    return environment.get_template('page.html').render(
        title=title,
        facts=facts,
        config=config,
        curves=curve_figures(records, name=title),
        findings=findings,
        precision=precision_figure(findings),
        confusion=confusion_table(findings),
        cards=cards,
        groups=[g for g in ('best', 'worst', 'random') if any(c['group'] == g for c in cards)],
        classes=classes,
        seen=sorted(seen),
        colours=[f'#{bytes(colour).hex()}' for colour in class_colours],
    )
