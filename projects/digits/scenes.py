"""Draw handwritten digits onto photographs, with the mask of each."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt
from sklearn.datasets import load_digits

from .photographs import Split

NUM_CLASSES = 10
SOURCE_SIDE = 8
# Zeros around the 8x8 source, so that interpolation and rotation never cut a stroke.
SOURCE_BORDER = 2
# load_digits keeps the order of writing: a cut by index shares at most one writer.
TRAIN_DIGIT_RATE = 0.8

# Interpolated intensity at which ink begins and at which it is opaque.
INK_FROM, INK_FULL = 0.35, 0.65
# Bright ink in a dark rim stays legible on any texture, and one polarity is learnt from fewer
# pictures than two: a small CNN scored 0.66 instead of 0.58 on val crops after equal training.
RIM_RATE = 0.045
RIM_VALUE = 0.04
MIN_INK_LUMA = 0.5
MAX_ROTATION_DEG = 12.0
MAX_SHEAR = 0.15
ASPECT_RATES = (0.85, 1.15)

# A later object may cover an earlier one down to this share of its pixels.
MIN_VISIBLE_RATE = 0.85
MAX_PLACEMENTS = 25
MAX_OBJECTS = 5
# Ink colours tried; of the bright ones the one farthest from the background is taken.
NUM_COLOURS = 16
LUMA = np.array([0.299, 0.587, 0.114])


class Glyph(NamedTuple):
    """One digit at its final size: opacity of ink and of ink plus rim, each (h, w) in [0, 1]."""

    ink: np.ndarray
    body: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Pixels that belong to the object."""
        return self.body > 0.5


class Item(NamedTuple):
    """One object of a scene: the digit, its visible pixels (H, W) and how many it had at first."""

    digit: int
    mask: np.ndarray
    full_area: int


def split_indices(split: Split, *, num_samples: int) -> np.ndarray:
    """Indices into ``load_digits`` that belong to a split."""
    cut = round(TRAIN_DIGIT_RATE * num_samples)
    return np.arange(cut) if split == 'train' else np.arange(cut, num_samples)


class DigitPool:
    """The 8x8 samples of one split, handed out so that none repeats before all were used."""

    def __init__(self, split: Split, *, rng: np.random.Generator) -> None:
        digits = load_digits()
        self.images = digits.images / 16
        indices = split_indices(split, num_samples=len(self.images))
        labels = digits.target[indices]
        self.orders = [rng.permutation(indices[labels == c]) for c in range(NUM_CLASSES)]
        self.used = [0] * NUM_CLASSES

    def draw(self, digit: int) -> np.ndarray:
        """Return the next sample of a digit.

        Shapes:
            -> (8, 8) float64 in [0, 1]
        """
        order = self.orders[digit]
        index = order[self.used[digit] % len(order)]
        self.used[digit] += 1
        return self.images[index]


class Deck:
    """Digits in random order, every one once per round: classes stay balanced to within a round."""

    def __init__(self, *, rng: np.random.Generator) -> None:
        self.rng = rng
        self.cards: list[int] = []

    def take(self) -> int:
        """Return the next digit."""
        if not self.cards:
            self.cards = self.rng.permutation(NUM_CLASSES).tolist()
        return self.cards.pop()

    def give_back(self, digit: int) -> None:
        """Put a digit that found no room back on top."""
        self.cards.append(digit)


def make_glyph(sample: np.ndarray, *, side_px: float, rng: np.random.Generator) -> Glyph:
    """Enlarge an 8x8 sample smoothly, turned, slanted and stretched a little at random.

    Args:
        sample: (8, 8) in [0, 1].
        side_px: Height that the 8 rows take before the random changes.
        rng: Source of the changes.

    Returns:
        The glyph, cut to its mask.
    """
    turn = np.deg2rad(rng.uniform(-MAX_ROTATION_DEG, MAX_ROTATION_DEG))
    slant = rng.uniform(-MAX_SHEAR, MAX_SHEAR)
    aspect = rng.uniform(*ASPECT_RATES)
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    forward = rotate @ np.array([[1, slant], [0, 1]]) @ np.diag([aspect, 1]) * side_px / SOURCE_SIDE
    backward = np.linalg.inv(forward)

    padded = np.pad(sample, SOURCE_BORDER).astype(np.float32)
    # Twice the side holds the padded source under every change above.
    canvas_px = int(np.ceil(2 * side_px))
    offset = np.full(2, len(padded) / 2) - backward @ np.full(2, canvas_px / 2)
    field = Image.fromarray(padded).transform(
        (canvas_px, canvas_px),
        Image.Transform.AFFINE,
        (*backward[0], offset[0], *backward[1], offset[1]),
        resample=Image.Resampling.BICUBIC,
    )
    ink = np.clip((np.asarray(field) - INK_FROM) / (INK_FULL - INK_FROM), 0, 1)
    rim_px = max(1.0, RIM_RATE * side_px)
    body = np.maximum(ink, np.clip(rim_px + 0.5 - distance_transform_edt(ink < 0.5), 0, 1))
    rows, columns = np.nonzero(body > 0.5)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return Glyph(ink[box], body[box])


def paint(canvas: np.ndarray, glyph: Glyph, *, rng: np.random.Generator) -> None:
    """Draw a glyph over a background of its size, in place.

    Shapes:
        canvas: (h, w, 3) in [0, 1]
    """
    behind = canvas[glyph.mask].mean(0)
    # A U-shaped distribution per channel gives saturated colours rather than greys.
    colours = rng.beta(0.4, 0.4, size=(NUM_COLOURS, 3))
    is_bright = colours @ LUMA >= MIN_INK_LUMA
    # Mixing with white lightens the dark ones instead of losing them: blue is never bright.
    colours[~is_bright] = (1 + colours[~is_bright]) / 2
    colour = colours[np.square(colours - behind).sum(-1).argmax()]
    for opacity, value in ((glyph.body, RIM_VALUE), (glyph.ink, colour)):
        canvas += opacity[..., None] * (value - canvas)


def add_digit(
    canvas: np.ndarray, items: list[Item], *, digit: int, glyph: Glyph, rng: np.random.Generator
) -> bool:
    """Place a glyph where it hides little of what is there, draw it and extend ``items``.

    Args:
        canvas: (H, W, 3) in [0, 1], changed in place.
        items: Objects so far; ``mask`` of those now covered shrinks in place.
        digit: Class of the glyph.
        glyph: What to draw; at most as large as the canvas.
        rng: Source of the position and the colours.

    Returns:
        Whether there was room.
    """
    height, width = glyph.body.shape
    if height > canvas.shape[0] or width > canvas.shape[1]:
        return False
    for _ in range(MAX_PLACEMENTS):
        top = int(rng.integers(canvas.shape[0] - height + 1))
        left = int(rng.integers(canvas.shape[1] - width + 1))
        box = np.s_[top : top + height, left : left + width]
        if all(_stays_visible(item, box=box, cover=glyph.mask) for item in items):
            break
    else:
        return False
    paint(canvas[box], glyph, rng=rng)
    mask = np.zeros(canvas.shape[:2], dtype=bool)
    mask[box] = glyph.mask
    for item in items:
        item.mask[mask] = False
    items.append(Item(digit, mask, np.count_nonzero(mask)))
    return True


def _stays_visible(item: Item, *, box: tuple[slice, slice], cover: np.ndarray) -> bool:
    """Whether enough of an object shows once ``cover`` lies on ``box``."""
    left = np.count_nonzero(item.mask) - np.count_nonzero(item.mask[box] & cover)
    return left >= MIN_VISIBLE_RATE * item.full_area
