"""Draw text labels on an image: inside its borders, scaled to it, without overlap."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swinv2_mm.datasets.files import shown
from swinv2_mm.datasets.palette import Colour, text_colour

_SHARE_OF_SIDE = 0.027
_FONT_PX = (12, 48)
_ELLIPSIS = '…'

Point = tuple[float, float]
Field = tuple[float, float, float, float]


class TextLabels:
    """Draw labels on an image.

    Args:
        picture: (H, W, 3), BGR.
    """

    def __init__(self, picture: np.ndarray) -> None:
        self._image = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))
        self._draw = ImageDraw.Draw(self._image)
        smallest, largest = _FONT_PX
        size = round(_SHARE_OF_SIDE * min(self._image.size))
        self._font = _font(min(max(size, smallest), largest))
        ascent, descent = self._font.getmetrics()
        self._padding = max(1, ascent // 8)
        self.line_px = ascent + descent + self._padding
        self._taken = np.empty((0, 4))

    def measure(self, text: str) -> tuple[float, float]:
        """Return width and height of the field of a text."""
        return self._draw.textlength(shown(text), font=self._font) + 2 * self._padding, self.line_px

    def write(
        self, text: str, places: Iterable[Point], *, colour: Colour, ending: str = ''
    ) -> Field | None:
        """Write a text at the first place (left, top) where it covers no other text.

        A place is moved into the image, a text that is wider than the image is shortened.

        Args:
            text: One line.
            places: Places to try, in this order.
            colour: Colour of the field behind it, RGB.
            ending: Follows the text and is never shortened.

        Returns:
            The field, or ``None`` if there was no such place.
        """
        text = self._shorten(shown(text), ending)
        width, height = self.measure(text)
        for left, top in places:
            left = max(0, min(round(left), self._image.width - round(width)))
            top = max(0, min(round(top), self._image.height - round(height)))
            field = left, top, left + width, top + height
            if not self._overlaps(field):
                break
        else:
            return None
        self._taken = np.vstack([self._taken, field])
        self._draw.rectangle(field, fill=colour)
        where = left + self._padding, top
        self._draw.text(where, text, fill=text_colour(colour), font=self._font)
        return field

    def picture(self) -> np.ndarray:
        """Return the image (H, W, 3), BGR, with its labels."""
        return np.ascontiguousarray(np.asarray(self._image)[:, :, ::-1])

    def _shorten(self, text: str, ending: str) -> str:
        if self.measure(text + ending)[0] <= self._image.width:
            return text + ending
        # More letters than can fit stay at first; then they go one by one until the text fits.
        text, ending = text[: max(self._image.width // 2, 1)], _ELLIPSIS + ending
        while len(text) > 1 and self.measure(text + ending)[0] > self._image.width:
            text = text[:-1]
        return text + ending

    def _overlaps(self, field: Field) -> bool:
        taken = self._taken
        return bool(((taken[:, :2] < field[2:]).all(1) & (field[:2] < taken[:, 2:]).all(1)).any())


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # It comes with matplotlib and has the letters of most European languages.
    path = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(str(path), size)
