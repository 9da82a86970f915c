"""Load the photographs that scikit-image and scikit-learn ship inside their wheels.

The files are read by path: ``skimage.data`` fetches some of its pictures over the network, and a
demo must not. Pictures without stated terms (``motorcycle_left``) and pictures that are mostly
flat (``moon``, ``hubble_deep_field``) are left out.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import skimage
import sklearn
from PIL import Image

Split = Literal['train', 'val']


class Source(NamedTuple):
    """Where one photograph lies and on what terms it is given."""

    package: Literal['skimage', 'sklearn']
    file: str
    terms: str


SOURCES = (
    Source('skimage', 'data/astronaut.png', 'NASA, public domain'),
    Source('skimage', 'data/brick.png', 'CC0, cc0textures.com'),
    Source('skimage', 'data/camera.png', 'CC0, Lav Varshney'),
    Source('skimage', 'data/chelsea.png', 'CC0, Stefan van der Walt'),
    Source('skimage', 'data/coffee.png', 'CC0, Rachel Michetti / Pikolo Espresso Bar'),
    Source('skimage', 'data/grass.png', 'CC0, linolafett'),
    Source('skimage', 'data/gravel.png', 'CC0, cc0textures.com'),
    Source('skimage', 'data/rocket.jpg', 'SpaceX, public domain'),
    Source('sklearn', 'datasets/images/china.jpg', 'CC BY 2.0, danielbuechele (Flickr)'),
    Source('sklearn', 'datasets/images/flower.jpg', 'CC BY 2.0, vultilion (Flickr)'),
)

# Wheels may drop a picture one day; below this many the backgrounds would repeat too often.
MIN_PHOTOS = 4

# Every photograph serves both splits: its left part trains, its right part validates. The strip
# between them belongs to neither, so that a texture does not run on from one into the other.
COLUMN_RATES: dict[Split, tuple[float, float]] = {'train': (0.0, 0.66), 'val': (0.70, 1.0)}

# Side of a crop relative to the picture made of it; other than 1 rescales the photograph.
ZOOM_RATES = (0.75, 1.5)


def available_sources() -> list[Source]:
    """List the sources whose file the installed packages hold.

    Raises:
        FileNotFoundError: If fewer than ``MIN_PHOTOS`` are there.
    """
    found = [source for source in SOURCES if source_path(source).is_file()]
    if len(found) < MIN_PHOTOS:
        raise FileNotFoundError(
            f'only {len(found)} of {len(SOURCES)} photographs are in the installed scikit-image '
            f'and scikit-learn; known to work: scikit-image 0.26, scikit-learn 1.9'
        )
    return found


def source_path(source: Source) -> Path:
    """Locate a source inside its installed package."""
    package = {'skimage': skimage, 'sklearn': sklearn}[source.package]
    return Path(package.__file__).parent / source.file


def load_regions(split: Split) -> list[Image.Image]:
    """Load the part of every photograph that belongs to a split, as RGB."""
    start, end = COLUMN_RATES[split]
    regions = []
    for source in available_sources():
        with Image.open(source_path(source)) as photo:
            width, height = photo.size
            box = (round(start * width), 0, round(end * width), height)
            regions.append(photo.convert('RGB').crop(box))
    return regions


def random_crop(
    regions: list[Image.Image], *, size_px: int, rng: np.random.Generator
) -> np.ndarray:
    """Cut a random square of a random region and scale it.

    Shapes:
        -> (size_px, size_px, 3) float64 in [0, 1]
    """
    region = regions[rng.integers(len(regions))]
    width, height = region.size
    side = min(round(size_px * rng.uniform(*ZOOM_RATES)), width, height)
    left = int(rng.integers(width - side + 1))
    top = int(rng.integers(height - side + 1))
    crop = region.resize(
        (size_px, size_px), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(crop, dtype=np.float64) / 255
