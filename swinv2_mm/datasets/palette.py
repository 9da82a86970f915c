"""Choose one colour per class for every visualization."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

Colour = tuple[int, int, int]

# Successive hues differ by the golden ratio: no two near in number are near in colour.
_HUE_STEP = 0.618034
_FIRST_HUE = 0.58
# Relative luminance from which black text has more contrast than white.
_BRIGHT = 0.179


def class_colour(label: int) -> Colour:
    """Return the colour (RGB, 0 to 255) of a class that has none of its own."""
    value = 0.95 - 0.15 * (label % 3)
    hue = (_FIRST_HUE + label * _HUE_STEP) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def class_colours(number: int, *, palette: object = None) -> list[Colour]:
    """Return a colour per class: the data set's own where there is one, else ``class_colour``.

    Args:
        number: How many classes.
        palette: ``metainfo['palette']`` of a data set; a word, as mmdet allows, counts as none.
    """
    given = [] if not isinstance(palette, Sequence) or isinstance(palette, str) else palette
    colours = [tuple(int(channel) for channel in colour) for colour in given[:number]]
    return colours + [class_colour(label) for label in range(len(colours), number)]


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever has more contrast (WCAG) on a background."""
    linear = [(channel / 255) ** 2.2 for channel in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > _BRIGHT else (255, 255, 255)
