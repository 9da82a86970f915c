"""Cut an image into tiles that overlap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from swinv2_mm.errors import UserError

# Narrower tiles show a model nothing.
_LEAST_TILE_PX = 32
# Overlap by tile side where none is asked for: that of mmdet's demo for large images.
_OVERLAP_SHARE = 0.25

Span = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles.

    Attributes:
        tile: Side of a tile in pixels.
        overlap: Least overlap of neighbours in pixels; larger objects are put together from parts.

    Raises:
        UserError: If a tile is too small, or the overlap is more than half of it.
    """

    tile: int
    overlap: int

    @classmethod
    def of(cls, tile: int, overlap: int | None = None) -> Tiling:
        """Return a tiling; without an overlap, that is a quarter of the tile."""
        return cls(tile, round(_OVERLAP_SHARE * tile) if overlap is None else overlap)

    def __post_init__(self) -> None:
        if self.tile < _LEAST_TILE_PX:
            raise UserError(f'tile must be at least {_LEAST_TILE_PX} pixels, got {self.tile}')
        if not 0 <= self.overlap <= self.tile // 2:
            raise UserError(
                f'overlap must be from 0 to half of the tile, {self.tile // 2} pixels, '
                f'got {self.overlap}'
            )

    def spans(self, length: int) -> list[Span]:
        """Return start and stop of the tiles along a side of an image, evenly distributed."""
        tile = min(self.tile, length)
        if tile == length:
            return [(0, length)]
        count = -(-(length - self.overlap) // (tile - self.overlap))
        starts = [number * (length - tile) // (count - 1) for number in range(count)]
        return [(start, start + tile) for start in starts]


@dataclass(frozen=True)
class TileGrid:
    """The tiles of an image, row by row.

    Attributes:
        size: Size of the image, (height, width).
        tiling: How it is cut.
    """

    size: tuple[int, int]
    tiling: Tiling

    @cached_property
    def rows(self) -> list[Span]:
        """Top and bottom of each row of tiles."""
        return self.tiling.spans(self.size[0])

    @cached_property
    def columns(self) -> list[Span]:
        """Left and right of each column of tiles."""
        return self.tiling.spans(self.size[1])

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def blending_weights(spans: list[Span]) -> list[np.ndarray]:
    """Return the weight of each tile at its pixels along a side: they fall towards other tiles.

    At every pixel of the side, the weights of all tiles add up to 1.
    """
    total = np.zeros(spans[-1][1], np.float32)
    weights = []
    for number, (start, stop) in enumerate(spans):
        length = stop - start
        weight = np.full(length, length, np.float32)
        distance = np.arange(1, length + 1, dtype=np.float32)
        if number > 0:
            weight = np.minimum(weight, distance)
        if number < len(spans) - 1:
            weight = np.minimum(weight, distance[::-1])
        weights.append(weight)
        total[start:stop] += weight
    return [
        weight / total[start:stop] for weight, (start, stop) in zip(weights, spans, strict=True)
    ]
