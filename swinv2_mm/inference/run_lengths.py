"""Hold instance masks of a large image as runs of pixels, never as arrays of its size.

A mask is an array (n, 2) of runs [start, stop), sorted and apart, in COCO's order of pixels: column
by column, each from top to bottom.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask


def mask_runs(mask: np.ndarray, *, left: int, top: int, height: int) -> np.ndarray:
    """Return the runs of a mask that lies at a place of an image.

    Args:
        mask: (h, w), bool.
        left: Column of the image where the mask begins.
        top: Row of the image where the mask begins.
        height: Height of the image.
    """
    x, y, width, rows = cv2.boundingRect(mask.view(np.uint8))
    part = mask[y : y + rows, x : x + width]
    steps = np.diff(part.T.astype(np.int8), axis=1, prepend=0, append=0)
    columns, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[1]
    first = (left + x + columns) * height + top + y
    return union([np.stack([first + starts, first + stops], axis=1)])


def union(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the runs of pixels that any of the masks has."""
    runs = np.concatenate(masks)
    runs = runs[np.argsort(runs[:, 0], kind='stable')]
    if not len(runs):
        return runs
    reach = np.maximum.accumulate(runs[:, 1])
    is_first = np.concatenate([[True], runs[1:, 0] > reach[:-1]])
    is_last = np.concatenate([is_first[1:], [True]])
    return np.stack([runs[is_first, 0], reach[is_last]], axis=1)


def encode_runs(runs: np.ndarray, *, size: tuple[int, int]) -> dict:
    """Return COCO's compressed RLE of a mask in an image of a size (height, width)."""
    height, width = size
    borders = runs.ravel()
    # A last run of zeros only where there are any.
    end = [] if len(borders) and borders[-1] == height * width else [height * width]
    counts = np.diff(np.concatenate([[0], borders, end])).astype(np.int64).tolist()
    return coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)


def sample_runs(
    runs: np.ndarray, *, size: tuple[int, int], stride: int
) -> tuple[np.ndarray, int, int]:
    """Return a mask on an image reduced by an integer, as a part of it.

    Args:
        runs: Runs of the mask.
        size: Size of the image, (height, width).
        stride: Pixels of the image per pixel of the reduced one; the middle one is taken.

    Returns:
        Mask (h, w), uint8, and its first column and row on the reduced image.
    """
    height, width = size
    whole = (0, height), (0, width)
    left, top, right, bottom = runs_box(runs, height=height, rows=whole[0], columns=whole[1])
    columns = np.arange(left // stride, min(-(-right // stride), width // stride))
    rows = np.arange(top // stride, min(-(-bottom // stride), height // stride))
    if not len(columns) or not len(rows):
        return np.zeros((0, 0), np.uint8), 0, 0
    middle = stride // 2
    places = (columns * stride + middle)[None, :] * height + (rows * stride + middle)[:, None]
    found = np.searchsorted(runs[:, 0], places, side='right') - 1
    inside = (found >= 0) & (places < runs[found, 1])
    return inside.astype(np.uint8), int(columns[0]), int(rows[0])


def runs_box(
    runs: np.ndarray, *, height: int, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what a mask has in a part of the image.

    Args:
        runs: Runs of the mask.
        height: Height of the image.
        rows: Top and bottom of the part.
        columns: Left and right of the part.

    Returns:
        The box; zeros if the mask has nothing there.
    """
    # The runs of whole columns lie together.
    inside = slice(
        np.searchsorted(runs[:, 1], columns[0] * height, side='right'),
        np.searchsorted(runs[:, 0], columns[1] * height),
    )
    first, last = runs[inside, 0], runs[inside, 1] - 1
    # A run may go on in the next columns.
    counts = last // height - first // height + 1
    column = np.repeat(first // height, counts) + _counted(counts)
    top = np.maximum(np.repeat(first, counts) - column * height, rows[0])
    bottom = np.minimum(np.repeat(last, counts) - column * height + 1, rows[1])
    seen = (top < bottom) & (column >= columns[0]) & (column < columns[1])
    if not seen.any():
        return 0, 0, 0, 0
    column = column[seen]
    return int(column.min()), int(top[seen].min()), int(column.max()) + 1, int(bottom[seen].max())


def _counted(counts: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... for each of the counts, one after another."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


class ReducedMasks:
    """Masks of a reduced image, each made when it is asked for.

    Args:
        masks: Runs of each.
        size: Size of their image, (height, width).
        stride: Pixels of it per pixel of the reduced one.
    """

    def __init__(self, masks: list[np.ndarray], *, size: tuple[int, int], stride: int) -> None:
        self._masks, self._size, self._stride = masks, size, stride

    def __len__(self) -> int:
        return len(self._masks)

    def part(self, number: int) -> tuple[np.ndarray, int, int]:
        """Return a mask (h, w), uint8, with its first column and row."""
        return sample_runs(self._masks[number], size=self._size, stride=self._stride)
