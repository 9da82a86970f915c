"""A page of images with their labels drawn on, to see at a glance that both fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from swinv2_mm.datasets.files import shown
from swinv2_mm.datasets.images import read_image
from swinv2_mm.errors import DataError

from .image_files import FileFault, read_label_map
from .listing import Listing, Mark, Sample
from .masks import MaskFault, encode
from .survey import Survey

_TILE_PX = 360
_CAPTION_PX = 22
_TITLE_PX = 34
_GAP_PX = 10
_COLUMNS = 4
_FONT_PX = 14
# Masks must not hide what they cover.
_OPACITY = 0.45
# Grey level from which black ink reads better than white.
_BRIGHT = 110
_VOID_COLOUR = (0, 0, 0)
# Paul Tol's "muted" scheme, RGB: ten colours that stay apart under the common colour blindnesses.
_PALETTE = (
    (204, 102, 119),
    (51, 34, 136),
    (221, 204, 119),
    (17, 119, 51),
    (136, 204, 238),
    (136, 34, 85),
    (68, 170, 153),
    (153, 153, 51),
    (170, 68, 153),
    (221, 221, 221),
)


def draw_contact_sheet(survey: Survey, path: Path) -> int:
    """Draw the samples of all data sets on one page.

    Args:
        survey: What was read.
        path: To write, its suffix one that Pillow knows.

    Returns:
        Number of images drawn; those that cannot be read are left out.
    """
    drawn = 0
    sections: list[tuple[str, list[Image.Image]]] = []
    for data_set in survey.data_sets:
        listing = data_set.listing
        tiles = [t for s in listing.samples if (t := _tile(s, listing)) is not None]
        drawn += len(tiles)
        where = data_set.source.annotation_file or data_set.source.folders.get('img_path', '')
        sections.append((f'{data_set.source.name}: {where}', tiles))
    # Rows as high as their highest image.
    rows = [
        (title if start == 0 else '', tiles[start : start + _COLUMNS])
        for title, tiles in sections
        for start in range(0, max(len(tiles), 1), _COLUMNS)
    ]
    height = sum(_row_height(title, tiles) for title, tiles in rows) + _GAP_PX
    page = Image.new('RGB', (_COLUMNS * (_TILE_PX + _GAP_PX) + _GAP_PX, height), 'white')
    draw, top = ImageDraw.Draw(page), _GAP_PX
    for title, tiles in rows:
        draw.text((_GAP_PX, top), title, fill='black', font=_font(_FONT_PX + 4))
        for column, tile in enumerate(tiles):
            left = _GAP_PX + column * (_TILE_PX + _GAP_PX)
            page.paste(tile, (left, top + (_TITLE_PX if title else 0)))
        top += _row_height(title, tiles)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)
    return drawn


def _row_height(title: str, tiles: list[Image.Image]) -> int:
    return max((t.height for t in tiles), default=0) + _GAP_PX + (_TITLE_PX if title else 0)


def _tile(sample: Sample, listing: Listing) -> Image.Image | None:
    """One image of the page with its name below, or ``None`` if it cannot be read."""
    entry = sample.entry
    try:
        image = Image.fromarray(read_image(entry.image)[:, :, ::-1])
    except DataError:
        return None
    original = image.size
    image.thumbnail((_TILE_PX, _TILE_PX))
    caption = shown(Path(entry.image).name)
    if sample.marks:
        # Annotated pixels, not those of the file: a difference must show.
        annotated = entry.size_px or original
        _draw_masks(image, sample.marks, annotated)
        _draw_boxes(image, sample.marks, annotated, listing.classes)
        caption += f' ({len(sample.marks)})'
    elif entry.label_map is not None:
        _draw_label_map(image, sample, listing)
    elif entry.label:
        _write(ImageDraw.Draw(image), (0, 0), entry.label, _colour_of(entry.label, listing))
    tile = Image.new('RGB', (_TILE_PX, image.height + _CAPTION_PX), 'white')
    tile.paste(image, (0, 0))
    draw = ImageDraw.Draw(tile)
    draw.text((0, image.height + 2), caption[-48:], fill='black', font=_font(_FONT_PX))
    return tile


def _draw_masks(image: Image.Image, marks: tuple[Mark, ...], annotated: tuple) -> None:
    width, height = map(int, annotated)
    if width * height > Image.MAX_IMAGE_PIXELS:
        return
    pixels = np.asarray(image, np.float32).copy()
    for mark in _largest_first(marks):
        try:
            rle = encode(mark.segmentation, width=width, height=height)
        except MaskFault:
            continue
        mask = Image.fromarray(coco_mask.decode(rle) * 255).resize(image.size)
        cover = _OPACITY * (np.asarray(mask)[..., None] > 127)
        pixels = pixels * (1 - cover) + cover * np.array(_PALETTE[mark.label % len(_PALETTE)])
    image.paste(Image.fromarray(pixels.astype(np.uint8)))


def _draw_boxes(
    image: Image.Image, marks: tuple[Mark, ...], annotated: tuple, classes: tuple[str, ...]
) -> None:
    draw = ImageDraw.Draw(image)
    across, down = image.width / annotated[0], image.height / annotated[1]
    placed = []
    for mark in _largest_first(marks):
        x, y, w, h = mark.box
        left, top = x * across, y * down
        right, bottom = (x + max(w, 0)) * across, (y + max(h, 0)) * down
        colour = _PALETTE[mark.label % len(_PALETTE)]
        # Dark around light: seen on any photograph.
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline='black', width=4)
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        name = classes[mark.label] + (' (crowd)' if mark.crowd else '')
        placed.append(((left, top), name, colour))
    taken: list[tuple[float, float, float, float]] = []
    for place, name, colour in placed:
        field = _field(draw, place, name)
        # Names over names are no names; the colour still tells.
        if not any(_overlap(field, other) for other in taken):
            taken.append(field)
            _write(draw, place, name, colour)


def _draw_label_map(image: Image.Image, sample: Sample, listing: Listing) -> None:
    """Blend the map over the image and list its classes."""
    is_panoptic = sample.entry.segments is not None
    try:
        values = read_label_map(sample.entry.label_map, packs_ids=is_panoptic)
    except FileFault:
        return
    if is_panoptic or listing.label_table is None:
        labels = np.where(values > 0, values % len(_PALETTE), -1)
        names: list[int] = []
    else:
        table = listing.label_table
        labels = np.where(
            (values >= 0) & (values < len(table)), table[np.clip(values, 0, len(table) - 1)], -1
        )
        present, pixels = np.unique(labels[labels >= 0], return_counts=True)
        names = present[np.argsort(-pixels)].tolist()
    colours = np.array([*_PALETTE, _VOID_COLOUR], np.uint8)
    picture = Image.fromarray(colours[np.where(labels >= 0, labels % len(_PALETTE), -1)])
    picture = picture.resize(image.size, Image.Resampling.NEAREST)
    image.paste(Image.blend(image, picture, _OPACITY))
    draw, top = ImageDraw.Draw(image), 0.0
    for label in names:
        if top > image.height - _FONT_PX:
            break
        colour = _PALETTE[label % len(_PALETTE)]
        top = _write(draw, (0, top), listing.classes[label], colour)


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: tuple[int, int, int]
) -> float:
    """Write on a field of its own; returns the lower edge of it."""
    left, top, right, bottom = _field(draw, place, text)
    draw.rectangle((left, top, right, bottom), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = 'black' if luminance > _BRIGHT else 'white'
    draw.text((left + 2, top), text, fill=ink, font=_font(_FONT_PX))
    return bottom


def _field(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str
) -> tuple[float, float, float, float]:
    """Where a text goes: inside the picture, however near to its edge the object is."""
    width = draw.textlength(text, font=_font(_FONT_PX)) + 4
    height = _FONT_PX + 4
    left = max(min(place[0], draw.im.size[0] - width), 0)
    top = max(min(place[1], draw.im.size[1] - height), 0)
    return left, top, left + width, top + height


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _largest_first(marks: tuple[Mark, ...]) -> list[Mark]:
    return sorted(marks, key=lambda mark: -abs(mark.box[2] * mark.box[3]))


def _colour_of(name: str, listing: Listing) -> tuple[int, int, int]:
    number = listing.classes.index(name) if name in listing.classes else 0
    return _PALETTE[number % len(_PALETTE)]


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
