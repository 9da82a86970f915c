"""Blend the logits of overlapping tiles into a label map, strip by strip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .tile_grid import TileGrid, blending_weights


class LogitBlender:
    """Blend logits where tiles overlap, and hand over the rows that no later tile reaches.

    What waits for the next row of tiles are the logits of the overlap: 4 bytes per class, column
    of the image and row of the overlap.

    Args:
        grid: The tiles, which are added row by row.
        on_strip: Called with labels (h, W), from the top of the image to its bottom.
        dtype: Data type of the labels.
        threshold: Probability from which a pixel is class 1, where a model has one output map.
    """

    def __init__(
        self,
        grid: TileGrid,
        *,
        on_strip: Callable[[np.ndarray], None],
        dtype: type[np.integer],
        threshold: float | None,
    ) -> None:
        self._grid, self._on_strip = grid, on_strip
        self._dtype, self._threshold = dtype, threshold
        self._row_weights = [torch.from_numpy(w)[:, None] for w in blending_weights(grid.rows)]
        self._column_weights = [torch.from_numpy(w) for w in blending_weights(grid.columns)]
        # Sums of weighted logits: of the rows below this row of tiles, of the columns to the right.
        self._below: Tensor | None = None
        self._right: Tensor | None = None
        self._strip: np.ndarray | None = None
        self._number = 0

    def add(self, logits: Tensor) -> None:
        """Add the logits (C, h, w) of the next tile."""
        row, column = divmod(self._number, len(self._grid.columns))
        self._number += 1
        (top, bottom), (left, right) = self._grid.rows[row], self._grid.columns[column]
        ends_at = self._grid.rows[row + 1][0] if row + 1 < len(self._grid.rows) else bottom
        stops_at = (
            self._grid.columns[column + 1][0] if column + 1 < len(self._grid.columns) else right
        )
        weights = self._row_weights[row] * self._column_weights[column]
        total = logits.float() * weights
        if column > 0 and self._right is not None:
            total[:, :, : self._right.shape[2]] += self._right
        self._right = total[:, :, stops_at - left :].clone()
        done = total[:, :, : stops_at - left]
        if row > 0 and self._below is not None:
            above = self._below[:, :, left:stops_at]
            done[:, : above.shape[1]] += above
        width = self._grid.size[1]
        if column == 0:
            self._strip = np.empty((ends_at - top, width), self._dtype)
            if row == 0:
                following = zip(self._grid.rows, self._grid.rows[1:], strict=False)
                num_waiting = max((end - start for (_, end), (start, _) in following), default=0)
                self._below = total.new_zeros((len(total), num_waiting, width))
        self._strip[:, left:stops_at] = self._labels(done[:, : ends_at - top])
        waiting = done[:, ends_at - top :]
        self._below[:, : waiting.shape[1], left:stops_at] = waiting
        self._below[:, waiting.shape[1] :, left:stops_at] = 0
        if stops_at == width:
            self._on_strip(self._strip)

    def _labels(self, logits: Tensor) -> np.ndarray:
        if len(logits) > 1:
            labels = logits.argmax(dim=0)
        else:
            # mmseg has taken the sigmoid of a single map.
            labels = logits[0] > self._threshold
        return labels.numpy().astype(self._dtype)


def sigmoid_threshold(model: nn.Module) -> float | None:
    """Return from which value a segmentor with a single map finds its class."""
    for name, module in model.named_modules():
        if name.rpartition('.')[2] == 'decode_head':
            return getattr(module, 'threshold', None)
    return None
