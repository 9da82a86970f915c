"""Draw a contact sheet: sample images with their annotations, to check both by eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from swinv2_mm.atomic_write import atomic_path
from swinv2_mm.datasets.files import FileFault, shown
from swinv2_mm.datasets.image_files import read_image, read_label_map
from swinv2_mm.datasets.palette import Colour, class_colour, text_colour

from .listing import Listing, Mark, Sample
from .masks import MaskFault, encode
from .survey import Survey

_TILE_PX = 360
_CAPTION_PX = 22
_GAP_PX = 10
_COLUMNS = 4
_FONT_PX = 14
_LINE_PX = 16
_MAX_LETTERS = 48
# Masks must not hide what they cover.
_OPACITY = 0.45
# Colours of the segments of a panoptic map.
_NUM_COLOURS = 24


def draw_contact_sheet(survey: Survey, path: Path) -> int:
    """Draw the samples of all data sets on one page.

    Args:
        survey: What was read.
        path: Image file to write; Pillow must know its suffix.

    Returns:
        Number of images drawn; those that cannot be read are left out.
    """
    tiles = [
        tile
        for data_set in survey.data_sets
        for sample in data_set.samples
        if (tile := _tile(sample, data_set)) is not None
    ]
    blank = torch.full((3, _TILE_PX + _CAPTION_PX, _TILE_PX), 255, dtype=torch.uint8)
    # A page of its full width, however few there are.
    rows = tiles + [blank] * (-len(tiles) % _COLUMNS or _COLUMNS * (not tiles))
    page = make_grid(rows, nrow=_COLUMNS, padding=_GAP_PX, pad_value=255)
    with atomic_path(path) as part:
        image = Image.fromarray(page.permute(1, 2, 0).numpy())
        image.save(part, format=Image.registered_extensions()[path.suffix.lower()])
    return len(tiles)


def _tile(sample: Sample, listing: Listing) -> Tensor | None:
    """Draw one image with its name below; ``None`` if it cannot be read."""
    entry = sample.entry
    try:
        original = Image.fromarray(read_image(entry.image)[:, :, ::-1])
    except FileFault:
        return None
    small = original.copy()
    small.thumbnail((_TILE_PX, _TILE_PX))
    image = _tensor(small)
    caption = f'{listing.source.name}: {shown(Path(entry.image).name)}'
    if sample.marks:
        # Annotated pixels, not those of the file: a difference must show.
        annotated = entry.size_px or original.size
        image = _draw_marks(image, sample.marks, annotated, listing.classes)
        caption += f' ({len(sample.marks)})'
    elif entry.label_map is not None:
        image = _draw_label_map(image, sample, listing)
    elif entry.label:
        known = listing.classes.index(entry.label) if entry.label in listing.classes else 0
        image = _write_names(image, [(entry.label, class_colour(known))])
    tile = Image.new('RGB', (_TILE_PX, _TILE_PX + _CAPTION_PX), 'white')
    tile.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (0, 0))
    place, font = (0, image.shape[1] + 2), ImageFont.load_default(_FONT_PX)
    ImageDraw.Draw(tile).text(place, caption[-_MAX_LETTERS:], fill='black', font=font)
    return _tensor(tile)


def _draw_marks(
    image: Tensor, marks: tuple[Mark, ...], annotated: tuple[float, float], classes: tuple[str, ...]
) -> Tensor:
    height, width = image.shape[1:]
    scale = torch.tensor([width / annotated[0], height / annotated[1]]).repeat(2)
    # The largest first, so that none is hidden.
    marks = sorted(marks, key=lambda mark: -abs(mark.box[2] * mark.box[3]))
    colours = [class_colour(mark.label) for mark in marks]
    masks = [_mask(mark, annotated, size=(width, height)) for mark in marks]
    if any(mask.any() for mask in masks):
        image = draw_segmentation_masks(image, torch.stack(masks), alpha=_OPACITY, colors=colours)
    boxes = torch.tensor([mark.box for mark in marks])
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].clamp(min=0)
    names = [classes[mark.label] + (' (crowd)' if mark.crowd else '') for mark in marks]
    return draw_bounding_boxes(
        image,
        boxes * scale,
        labels=names,
        colors=colours,
        width=2,
        fill_labels=True,
        label_colors=[text_colour(colour) for colour in colours],
    )


def _mask(mark: Mark, annotated: tuple[float, float], *, size: tuple[int, int]) -> Tensor:
    width, height = map(int, annotated)
    try:
        if width * height > Image.MAX_IMAGE_PIXELS:
            raise MaskFault('mask-malformed')
        rle = encode(mark.segmentation, width=width, height=height)
    except MaskFault:
        return torch.zeros(size[::-1], dtype=torch.bool)
    mask = Image.fromarray(coco_mask.decode(rle) * 255).resize(size)
    return torch.from_numpy(np.asarray(mask) > 127)


def _draw_label_map(image: Tensor, sample: Sample, listing: Listing) -> Tensor:
    """Blend the map over the image and list its classes."""
    is_panoptic, table = sample.entry.segments is not None, listing.label_table
    try:
        values = read_label_map(sample.entry.label_map, packs_ids=is_panoptic)
    except FileFault:
        return image
    if is_panoptic or table is None:
        labels = np.where(values > 0, values % _NUM_COLOURS, -1)
    else:
        is_value = (values >= 0) & (values < len(table))
        labels = np.where(is_value, table[np.clip(values, 0, len(table) - 1)], -1)
    present, pixels = np.unique(labels[labels >= 0], return_counts=True)
    small = Image.fromarray(labels.astype(np.int32)).resize(
        tuple(image.shape[:0:-1]), Image.Resampling.NEAREST
    )
    if present.size:
        masks = torch.from_numpy(np.asarray(small) == present[:, None, None])
        colours = [class_colour(label) for label in present.tolist()]
        image = draw_segmentation_masks(image, masks, alpha=_OPACITY, colors=colours)
    if is_panoptic or table is None:
        return image
    order = present[np.argsort(-pixels)].tolist()
    return _write_names(image, [(listing.classes[label], class_colour(label)) for label in order])


def _write_names(image: Tensor, names: list[tuple[str, Colour]]) -> Tensor:
    """Write names below each other, each on its colour."""
    names = names[: max(1, image.shape[1] // _LINE_PX)]
    if not names:
        return image
    tops = torch.arange(len(names)) * _LINE_PX
    boxes = torch.stack([tops * 0, tops, tops * 0 + 1, tops + 1], dim=1)
    texts, colours = zip(*names, strict=True)
    return draw_bounding_boxes(
        image,
        boxes,
        labels=list(texts),
        colors=list(colours),
        fill_labels=True,
        label_colors=[text_colour(colour) for colour in colours],
    )


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
