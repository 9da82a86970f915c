"""Write one split of the data set in its three layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from .mask_polygons import mask_to_polygons
from .photographs import Split, load_regions, random_crop
from .scenes import (
    MAX_OBJECTS,
    Deck,
    DigitPool,
    Item,
    add_digit,
    make_glyph,
)

JPEG_QUALITY = 92
# Height of a digit relative to the picture, 36 to 64 px of 128. Narrow on purpose: from 0.6-0.9 to
# 0.75-0.9 took a small CNN from 0.58 to 0.77 on val crops after equal training.
OBJECT_SIDE_RATES = (0.28, 0.5)
CROP_SIDE_RATES = (0.75, 0.9)

# One stream of random numbers per layout and split: the number of pictures in one of them does
# not change the pictures in another.
STREAMS = {('scenes', 'train'): 0, ('scenes', 'val'): 1, ('crops', 'train'): 2, ('crops', 'val'): 3}


def write_scenes(
    root: Path,
    *,
    split: Split,
    num_images: int,
    size_px: int,
    seed: int,
    classes: tuple[str, ...],
    advance: Callable[[], object],
) -> None:
    """Write pictures of several digits with COCO instances and label maps.

    Args:
        root: Folder of the data set.
        split: Which digits and which parts of the photographs to use.
        num_images: Pictures to write.
        size_px: Side of a picture.
        seed: Seed of everything random.
        classes: Names of the ten digits.
        advance: Called after each picture.
    """
    rng = np.random.default_rng([seed, STREAMS['scenes', split]])
    regions, pool, deck = load_regions(split), DigitPool(split, rng=rng), Deck(rng=rng)
    image_dir, label_dir = root / 'images' / split, root / 'label_maps' / split
    for folder in (image_dir, label_dir, root / 'annotations'):
        folder.mkdir(parents=True, exist_ok=True)

    images, annotations = [], []
    for image_id in range(1, num_images + 1):
        canvas = random_crop(regions, size_px=size_px, rng=rng)
        items: list[Item] = []
        for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
            digit = deck.take()
            side_px = size_px * rng.uniform(*OBJECT_SIDE_RATES)
            glyph = make_glyph(pool.draw(digit), side_px=side_px, rng=rng)
            if not add_digit(canvas, items, digit=digit, glyph=glyph, rng=rng):
                deck.give_back(digit)
                break

        name = f'{image_id:05d}'
        _save_jpeg(canvas, image_dir / f'{name}.jpg')
        labels = np.zeros((size_px, size_px), dtype=np.uint8)
        for item in items:
            labels[item.mask] = item.digit + 1
            annotations.append(_annotation(item, id=len(annotations) + 1, image_id=image_id))
        Image.fromarray(labels).save(label_dir / f'{name}.png')
        images.append(
            {'id': image_id, 'file_name': f'{name}.jpg', 'width': size_px, 'height': size_px}
        )
        advance()

    categories = [{'id': i, 'name': name} for i, name in enumerate(classes, start=1)]
    coco = {'images': images, 'annotations': annotations, 'categories': categories}
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco), encoding='utf-8')


def write_crops(
    root: Path,
    *,
    split: Split,
    num_per_class: int,
    size_px: int,
    seed: int,
    classes: tuple[str, ...],
    advance: Callable[[], object],
) -> None:
    """Write pictures of one digit each into a folder per class.

    Args:
        root: Folder of the data set.
        split: Which digits and which parts of the photographs to use.
        num_per_class: Pictures per digit.
        size_px: Side of a picture.
        seed: Seed of everything random.
        classes: Names of the ten digits, in order.
        advance: Called after each picture.
    """
    rng = np.random.default_rng([seed, STREAMS['crops', split]])
    regions, pool = load_regions(split), DigitPool(split, rng=rng)
    for digit, name in enumerate(classes):
        folder = root / 'folders' / split / name
        folder.mkdir(parents=True)
        for index in range(1, num_per_class + 1):
            canvas = random_crop(regions, size_px=size_px, rng=rng)
            side_px = size_px * rng.uniform(*CROP_SIDE_RATES)
            placed = False
            # A slanted wide digit can be larger than the picture; less of it then.
            while not placed:
                glyph = make_glyph(pool.draw(digit), side_px=side_px, rng=rng)
                placed = add_digit(canvas, [], digit=digit, glyph=glyph, rng=rng)
                side_px *= 0.9
            _save_jpeg(canvas, folder / f'{folder.name}_{index:05d}.jpg')
            advance()


def _annotation(item: Item, *, id: int, image_id: int) -> dict[str, object]:
    """One COCO instance; box and area are those of the visible pixels."""
    rows, columns = np.nonzero(item.mask)
    left, top = int(columns.min()), int(rows.min())
    return {
        'id': id,
        'image_id': image_id,
        'category_id': item.digit + 1,
        'bbox': [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        'area': len(rows),
        'iscrowd': 0,
        'segmentation': mask_to_polygons(item.mask),
    }


def _save_jpeg(canvas: np.ndarray, path: Path) -> None:
    """Save (H, W, 3) in [0, 1]."""
    pixels = np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8)
    # No chroma subsampling: it smears thin strokes of saturated colour.
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY, subsampling=0)
