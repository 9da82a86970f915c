"""Window partition: how a map is cut into windows, with their shift, padding and segments.

Shape letters of this package:
    B images, H W map in tokens (Hp Wp with padding), M window side (Mh Mw), N = Mh * Mw,
    nH nW windows per column and row, C channels, d channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .tensor_cache import TOKENS
from .tracing import fx_leaf

# Height and width; a map of a video has an axis of time before them (projects/video).
Size = tuple[int, ...]
Tiling = Literal['fixed', 'balanced']

# Where a token along one axis of the shifted, padded map comes from.
_INSIDE, _WRAPPED, _PADDED = 0, 1, 2


@dataclass(frozen=True)
class AxisRun:
    """Consecutive windows along one axis whose tokens have the same origins.

    Attributes:
        start: Index of the first window.
        stop: Index after the last window.
        origins: Origin of each of the M tokens of such a window: inside, wrapped or padded.
    """

    start: int
    stop: int
    origins: tuple[int, ...]


@dataclass(frozen=True)
class WindowGrid:
    """The window geometry of one block on one map. All sizes in tokens.

    Attributes:
        size: Height and width of the map, without padding.
        window: Sides of a window, clipped to the map.
        shift: Cyclic shift towards the top left; 0 along an axis without one.
        nominal_window: Sides of the window before it was clipped or balanced.
    """

    size: Size
    window: Size
    shift: Size
    nominal_window: Size

    @property
    def num_windows(self) -> Size:
        """Windows per column and per row."""
        # Not ``-(-n // m)``: ONNX rounds a negative quotient towards zero.
        return tuple((n + m - 1) // m for n, m in zip(self.size, self.window, strict=True))

    @property
    def padded_size(self) -> Size:
        """Height and width after padding at the bottom and right."""
        return tuple(n * m for n, m in zip(self.num_windows, self.window, strict=True))

    def axis_runs(self, axis: int) -> tuple[AxisRun, ...]:
        """Group the windows along an axis (0 vertical, 1 horizontal) by the mask they need."""
        return _axis_runs(self.size[axis], self.window[axis], self.shift[axis])

    def segment_ids(self) -> Tensor:
        """Number the parts of the shifted map that belong together; -1 is padding.

        Shapes:
            -> (Hp, Wp), or (Tp, Hp, Wp), int8
        """
        origins = []
        for sources, length, shift in zip(self.sources(), self.size, self.shift, strict=True):
            inside = torch.where(sources < shift, _WRAPPED, _INSIDE)
            origins.append(torch.where(sources >= length, _PADDED, inside))
        return combine_origins(*origins)

    def sources(self) -> tuple[Tensor, ...]:
        """Where the rows (Hp,) and columns (Wp,) of the shifted map come from in the padded one."""
        return tuple(
            _rotated(padded, start=shift, length=padded)
            for padded, shift in zip(self.padded_size, self.shift, strict=True)
        )

    def places(self) -> tuple[Tensor, ...]:
        """Where the rows (H,) and columns (W,) of the map are in the shifted, padded one."""
        return tuple(
            _rotated(length, start=padded - shift, length=padded)
            for padded, length, shift in zip(self.padded_size, self.size, self.shift, strict=True)
        )


def _rotated(number: int, *, start: int, length: int) -> Tensor:
    """Return ``number`` places in a row, from ``start`` on, of a circle of ``length``.

    Not by a remainder: the ONNX exporter cannot divide by a length that is open.
    """
    places = torch.arange(number) + start
    return torch.where(places >= length, places - length, places)


def window_grid(size: Size, *, window: Size, shifted: bool, tiling: Tiling) -> WindowGrid:
    """Lay windows over a map.

    Along each axis a window that covers the map is clipped to it and does not shift (the
    official rule). ``balanced`` tiling takes as many windows as ``fixed`` does, but of equal
    size and with the least padding.

    Raises:
        ValueError: If ``tiling`` is unknown.
    """
    sides, shifts = [], []
    for length, side in zip(size, window, strict=True):
        if isinstance(length, torch.SymInt):
            # Open in an exported graph: padding a small map to a window is the same as clipping.
            num_windows = (length + side - 1) // side
            sides.append(side)
            # No shift where there is one window, in arithmetic that a graph can hold.
            shifts.append(side // 2 * (1 - 1 // num_windows) if shifted else 0)
            continue
        if length <= side:
            sides.append(length)
            shifts.append(0)
            continue
        if tiling == 'balanced':
            side = -(-length // -(-length // side))
        elif tiling != 'fixed':
            raise ValueError(f"tiling must be 'fixed' or 'balanced', got '{tiling}'")
        sides.append(side)
        shifts.append(side // 2 if shifted else 0)
    return WindowGrid(tuple(size), tuple(sides), tuple(shifts), tuple(window))


@fx_leaf
def grid_of(x: Tensor, *, window: Size, shifted: bool, tiling: Tiling) -> WindowGrid:
    """Lay windows over the map (B, H, W, C) that a block is given; see ``window_grid``."""
    size: Size = tuple(x.shape[1:-1])
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        # The graph is for maps of this size.
        size = tuple(map(int, size))
    return window_grid(size, window=window, shifted=shifted, tiling=tiling)


@lru_cache(maxsize=4096)
def _axis_runs(length: int, side: int, shift: int) -> tuple[AxisRun, ...]:
    padded = -(-length // side) * side

    def origin(position: int) -> int:
        source = (position + shift) % padded
        if source >= length:
            return _PADDED
        return _WRAPPED if source < shift else _INSIDE

    windows = [tuple(origin(start + i) for i in range(side)) for start in range(0, padded, side)]
    runs, start = [], 0
    for origins, members in groupby(windows):
        stop = start + len(list(members))
        runs.append(AxisRun(start, stop, origins))
        start = stop
    return tuple(runs)


def combine_origins(*origins: Tensor) -> Tensor:
    """Combine the origins of the tokens along each axis into segment ids; -1 is padding.

    Shapes:
        (h,), (w,) -> (h, w), int8; any number of axes
    """
    ids = torch.zeros((), dtype=torch.int8)
    is_padded = torch.zeros((), dtype=torch.bool)
    for along in origins:
        ids = 2 * ids[..., None] + (along == _WRAPPED).to(torch.int8)
        is_padded = is_padded[..., None] | (along == _PADDED)
    # Chosen as int64: ONNX Runtime 1.23 cannot choose among numbers of 8 bits.
    return torch.where(is_padded, -1, ids.long()).to(torch.int8)


def window_tokens(
    row: AxisRun, *, columns: AxisRun, grid: WindowGrid, batch: int, device: torch.device
) -> Tensor:
    """Number the tokens of the windows in a run of rows and one of columns.

    Args:
        batch: Images B, whose maps follow each other.

    Shapes:
        -> (B * windows, N), from 0 to B * H * W - 1; B * H * W is padding
    """
    (h, w), (mh, mw) = grid.size, grid.window

    def build() -> Tensor:
        rows, cols = (
            sources.unflatten(0, (-1, side))[run.start : run.stop]
            for sources, side, run in zip(grid.sources(), grid.window, (row, columns), strict=True)
        )
        rows, cols = rows[:, None, :, None], cols[None, :, None, :]
        image = rows * w + cols + h * w * torch.arange(batch).reshape(-1, 1, 1, 1, 1)
        tokens = torch.where((rows < h) & (cols < w), image, batch * h * w)
        return tokens.reshape(-1, mh * mw).to(device)

    return TOKENS.get(('tokens', grid, row, columns, batch, device), build)


def to_windows(x: Tensor, *, grid: WindowGrid) -> Tensor:
    """Pad a map at the bottom and right with zeros, shift it, and cut it into windows.

    Shapes:
        (B, H, W, C) -> (B, nH, Mh, nW, Mw, C), a view where nothing is padded or shifted;
        (B, T, H, W, C) -> (B, nT, Mt, nH, Mh, nW, Mw, C)
    """
    missing = [p - n for p, n in zip(grid.padded_size, grid.size, strict=True)]
    if any(missing):
        x = F.pad(x, (0, 0, *(side for m in reversed(missing) for side in (0, m))))
    if any(grid.shift):
        x = x.roll([-shift for shift in grid.shift], dims=_map_axes(grid))
    cuts = (n for pair in zip(grid.num_windows, grid.window, strict=True) for n in pair)
    return x.reshape(x.shape[0], *cuts, x.shape[-1])


def from_windows(x: Tensor, *, grid: WindowGrid) -> Tensor:
    """Undo ``to_windows``.

    Shapes:
        (B, nH, Mh, nW, Mw, C) -> (B, H, W, C)
    """
    x = x.reshape(x.shape[0], *grid.padded_size, x.shape[-1])
    if any(grid.shift):
        x = x.roll(grid.shift, dims=_map_axes(grid))
    for axis, length in zip(_map_axes(grid), grid.size, strict=True):
        x = x.narrow(axis, 0, length)
    return x


def _map_axes(grid: WindowGrid) -> list[int]:
    return list(range(1, 1 + len(grid.size)))
