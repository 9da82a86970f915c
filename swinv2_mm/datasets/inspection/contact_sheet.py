"""A page of images with their labels drawn on, to see at a glance that both fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from pycocotools import mask as coco_mask

from .image_files import FileFault, read_label_map
from .listing import Listing, Mark, Sample
from .masks import MaskFault, encode
from .survey import Survey

# Okabe and Ito's colours, which stay apart under the common colour blindnesses, without black;
# where there are more classes, colours repeat and the written names tell them apart.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 85, 94),
    (204, 121, 167),
)
_TILE_PX = 360
_CAPTION_PX = 22
_TITLE_PX = 34
_GAP_PX = 10
_COLUMNS = 4
_FONT_PX = 14
# Masks must not hide what they cover.
_OPACITY = 0.45
_MAX_NAMES = 30
_VOID_COLOUR = (0, 0, 0)


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
    cell = _TILE_PX + _GAP_PX
    rows = sum(-(-len(tiles) // _COLUMNS) for _, tiles in sections)
    height = rows * (cell + _CAPTION_PX) + len(sections) * _TITLE_PX + _GAP_PX
    page = Image.new('RGB', (_COLUMNS * cell + _GAP_PX, height), 'white')
    draw, top = ImageDraw.Draw(page), _GAP_PX
    for title, tiles in sections:
        draw.text((_GAP_PX, top), title, fill='black', font=_font(_FONT_PX + 4))
        top += _TITLE_PX
        for number, tile in enumerate(tiles):
            column = number % _COLUMNS
            page.paste(tile, (_GAP_PX + column * cell, top))
            if column == _COLUMNS - 1 or number == len(tiles) - 1:
                top += cell + _CAPTION_PX
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)
    return drawn


def _tile(sample: Sample, listing: Listing) -> Image.Image | None:
    """One image of the page with its name below, or ``None`` if it cannot be read."""
    entry = sample.entry
    try:
        with Image.open(entry.image) as image:
            image = ImageOps.exif_transpose(image).convert('RGB')
    except (OSError, SyntaxError, ValueError):
        return None
    original = image.size
    image.thumbnail((_TILE_PX, _TILE_PX))
    caption = Path(entry.image).name
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
    tile = Image.new('RGB', (_TILE_PX, _TILE_PX + _CAPTION_PX), 'white')
    tile.paste(image, (0, 0))
    draw = ImageDraw.Draw(tile)
    draw.text((0, image.height + 2), caption[-48:], fill='black', font=_font(_FONT_PX))
    return tile


def _draw_masks(image: Image.Image, marks: tuple[Mark, ...], annotated: tuple) -> None:
    width, height = map(int, annotated)
    pixels = np.asarray(image, np.float32).copy()
    for mark in _largest_first(marks):
        try:
            rle = encode(mark.segmentation, width=width, height=height)
        except MaskFault:
            continue
        mask = Image.fromarray(coco_mask.decode(rle) * 255).resize(image.size)
        cover = _OPACITY * (np.asarray(mask)[..., None] > 127)
        pixels = pixels * (1 - cover) + cover * np.array(PALETTE[mark.label % len(PALETTE)])
    image.paste(Image.fromarray(pixels.astype(np.uint8)))


def _draw_boxes(
    image: Image.Image, marks: tuple[Mark, ...], annotated: tuple, classes: tuple[str, ...]
) -> None:
    draw = ImageDraw.Draw(image)
    across, down = image.width / annotated[0], image.height / annotated[1]
    named = 0
    for mark in _largest_first(marks):
        x, y, w, h = mark.box
        colour = PALETTE[mark.label % len(PALETTE)]
        corners = [x * across, y * down, (x + max(w, 0)) * across, (y + max(h, 0)) * down]
        # Dark below light: seen on any photograph.
        draw.rectangle(corners, outline='black', width=3)
        draw.rectangle(corners, outline=colour, width=1)
        if named < _MAX_NAMES:
            name = classes[mark.label] + (' (crowd)' if mark.crowd else '')
            _write(draw, (corners[0], corners[1]), name, colour)
            named += 1


def _draw_label_map(image: Image.Image, sample: Sample, listing: Listing) -> None:
    """Blend the map over the image and list its classes."""
    is_panoptic = sample.entry.segments is not None
    try:
        values = read_label_map(sample.entry.label_map, packs_ids=is_panoptic)
    except FileFault:
        return
    if is_panoptic or listing.label_table is None:
        labels = np.where(values > 0, values % len(PALETTE), -1)
        names: list[int] = []
    else:
        table = listing.label_table
        labels = np.where(
            (values >= 0) & (values < len(table)), table[np.clip(values, 0, len(table) - 1)], -1
        )
        present, pixels = np.unique(labels[labels >= 0], return_counts=True)
        names = present[np.argsort(-pixels)].tolist()
    colours = np.array([*PALETTE, _VOID_COLOUR], np.uint8)
    picture = Image.fromarray(colours[np.where(labels >= 0, labels % len(PALETTE), -1)])
    picture = picture.resize(image.size, Image.Resampling.NEAREST)
    image.paste(Image.blend(image, picture, _OPACITY))
    draw, top = ImageDraw.Draw(image), 0.0
    for label in names:
        if top > image.height - _FONT_PX:
            break
        colour = PALETTE[label % len(PALETTE)]
        top = _write(draw, (0, top), listing.classes[label], colour)


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: tuple[int, int, int]
) -> float:
    """Write on a field of its own; returns the lower edge of it."""
    font = _font(_FONT_PX)
    left, top, right, bottom = draw.textbbox(place, text, font=font)
    # Inside the picture, however near to its edge the object is.
    shift_x = min(0.0, draw.im.size[0] - right - 2)
    shift_y = min(0.0, draw.im.size[1] - bottom - 2)
    x, y = max(place[0] + shift_x, 0), max(place[1] + shift_y, 0)
    left, top, right, bottom = draw.textbbox((x, y), text, font=font)
    draw.rectangle((left - 1, top - 2, right + 2, bottom + 2), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    draw.text((x, y), text, fill='black' if luminance > 110 else 'white', font=font)
    return bottom + 2


def _largest_first(marks: tuple[Mark, ...]) -> list[Mark]:
    return sorted(marks, key=lambda mark: -abs(mark.box[2] * mark.box[3]))


def _colour_of(name: str, listing: Listing) -> tuple[int, int, int]:
    number = listing.classes.index(name) if name in listing.classes else 0
    return PALETTE[number % len(PALETTE)]


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
