"""Prepare the example images of a report: choice, thumbnails, labels that do not overlap."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from swinv2_mm.datasets.image_files import read_image
from swinv2_mm.datasets.palette import Colour, text_colour

from .findings import Example, Findings, Shape, Side

_LONGER_SIDE_PX = 480
_LONGEST_NAME = 24
# Width of a picture in line heights, and of a letter in line heights.
_LINES = 20
_LETTER = 0.55
_SEED = 0

Colours = Sequence[Colour]


def shortened(name: str) -> str:
    """Return the name of a class as there is room for."""
    # matplotlib leaves labels out that begin with an underscore.
    name = name if not name.startswith('_') else f' {name}'
    return name if len(name) <= _LONGEST_NAME else f'{name[: _LONGEST_NAME - 1]}…'


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
        text = shortened(classes[shape.label]) + (f' {shape.score:.2f}' if shape.score < 1 else '')
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


def picture_section(
    findings: Findings,
    examples: Sequence[tuple[Example, str]],
    *,
    classes: Sequence[str],
    class_colours: Colours,
) -> dict[str, Any]:
    """Return what ``pictures.html`` shows.

    Args:
        findings: What the pictures show.
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
