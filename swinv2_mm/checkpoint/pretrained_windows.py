"""Find the pretrained window size of a position bias in the weights themselves.

A bias network maps coordinates to a bias, and coordinates are offsets in units of that window:
without it, the weights mean nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from swinv2_mm.core.position_bias import PositionBias, relative_coords
from swinv2_mm.core.window_partition import Size
from swinv2_mm.errors import printable

from .errors import CheckpointError
from .layouts import WINDOWS_BUFFER

_COORDS = re.compile(r'layers\.(\d+)\.blocks\.\d+\.attn\.relative_coords_table')
_BIAS_TABLE = re.compile(r'layers\.(\d+)\.blocks\.\d+\.attn\.relative_position_bias_table')
# Enough for tables stored in bfloat16, whose largest value is below 2.
_COORDS_TOLERANCE = 8e-3
# Bounds beyond which an entry is invalid, and its inverse might overflow.
_LARGEST_WINDOW = 1e4
_LARGEST_LOG_COORD = 10.0
# In tokens: the map of an image of 4,096 pixels. A table for it has 67 MB in float64.
_LARGEST_SIDE = 1024


def find_pretrained_window_sizes(
    weights: Mapping[str, Tensor],
    *,
    num_stages: int,
    position_bias: PositionBias,
    declared: Any = None,
) -> tuple[Size, ...] | None:
    """Return the window of each stage, or ``None`` if it is unknown.

    Looks at our own buffer, at the coordinate tables that most programs save or at the size of
    a learnt bias table, and at what is declared beside the weights, in this order.

    Args:
        weights: Tensors under our names, derived buffers included.
        num_stages: Stages of the model.
        position_bias: What the weights are used for.
        declared: See ``Weights.declared_window_sizes``.

    Raises:
        CheckpointError: If what is there is not what such an entry can be, or is incomplete.
    """
    if WINDOWS_BUFFER in weights:
        buffer = weights[WINDOWS_BUFFER]
        # What has another shape may be as large as the file.
        is_plain = buffer.numel() == 2 * num_stages and not buffer.is_meta
        value = buffer.tolist() if is_plain else f'a tensor {tuple(buffer.shape)}'
        return _checked_windows(value, num_stages=num_stages)
    found = _windows_in_tables(weights, num_stages=num_stages, position_bias=position_bias)
    if found is None and declared is not None:
        return _checked_windows(declared, num_stages=num_stages)
    return found


def _windows_in_tables(
    weights: Mapping[str, Tensor], *, num_stages: int, position_bias: PositionBias
) -> tuple[Size, ...] | None:
    found: dict[int, Size] = {}
    for name, value in weights.items():
        if match := _COORDS.fullmatch(name):
            if position_bias == 'table':
                continue
            window = window_of_coords(value, kind=position_bias)
        elif (match := _BIAS_TABLE.fullmatch(name)) and position_bias == 'table':
            window = _window_of_bias_table(value)
            if window is None:
                return None
        else:
            continue
        stage = int(match[1])
        if window is None:
            raise CheckpointError(
                f'{name} is not the coordinate table of any window with the position bias '
                f"'{position_bias}'"
            )
        if found.setdefault(stage, window) != window:
            raise CheckpointError(f'the coordinate tables of stage {stage} contradict each other')
    if not found:
        return None
    if set(found) != set(range(num_stages)):
        raise CheckpointError(
            f'only the stages {sorted(found)} have a coordinate table, the model has {num_stages}'
        )
    return tuple(found[stage] for stage in range(num_stages))


def window_of_coords(table: Tensor, *, kind: Literal['log_cpb', 'linear_cpb']) -> Size | None:
    """Invert ``relative_coords``: its largest value and size fix the pretrained window.

    Along each axis the largest offset W - 1 has the coordinate log2(8 (W - 1) / (W_ref - 1) + 1)
    / 3, or (W - 1) / (W_ref - 1) if linear. A window of one token determines nothing, and nothing
    depends on it: its trained window counts as 1.

    Shapes:
        (1, 2Mh - 1, 2Mw - 1, 2) -> W_ref of both axes; ``None`` for any other table
    """
    if table.ndim != 4 or table.shape[0] != 1 or table.shape[3] != 2 or not table.numel():
        return None
    window = tuple((side + 1) // 2 for side in table.shape[1:3])
    if max(window) > _LARGEST_SIDE or table.is_meta or not table.is_floating_point():
        return None
    table = table.detach().to('cpu', torch.float64)
    trained = []
    for axis, side in enumerate(window):
        largest = table[..., axis].max().item()
        if side == 1:
            trained.append(1)
            continue
        if kind == 'log_cpb' and largest < _LARGEST_LOG_COORD:
            largest = math.expm1(3 * math.log(2) * largest) / 8
        if not 1 / _LARGEST_WINDOW < largest < _LARGEST_WINDOW:
            return None
        trained.append(round((side - 1) / largest) + 1)
    expected = relative_coords(
        window,
        pretrained_window_size=tuple(trained),
        kind=kind,
        device=table.device,
        dtype=torch.float64,
    )
    if expected.shape != table.flatten(0, 2).shape:
        return None
    is_same = (expected - table.flatten(0, 2)).abs().max() <= _COORDS_TOLERANCE
    return tuple(trained) if is_same else None


def _window_of_bias_table(table: Tensor) -> Size | None:
    # Only of a square window does the length give the sides.
    side = math.isqrt(table.shape[0]) if table.ndim == 2 else 0
    return ((side + 1) // 2,) * 2 if side % 2 and side * side == table.shape[0] else None


def _checked_windows(value: Any, *, num_stages: int) -> tuple[Size, ...]:
    is_list = isinstance(value, list) and len(value) == num_stages
    if is_list and all(isinstance(size, list) and len(size) == 2 for size in value):
        # Whole numbers, also after all tensors of a file were cast to half precision.
        windows = tuple(
            tuple(int(s) if isinstance(s, float) and s.is_integer() else s for s in size)
            for size in value
        )
        if all(type(s) is int and 0 < s <= _LARGEST_SIDE for size in windows for s in size):
            return windows
    raise CheckpointError(
        f'{WINDOWS_BUFFER} is not one window per stage of a model with {num_stages}, of at most '
        f'{_LARGEST_SIDE:,} tokens a side: {_described(value)}'
    )


def _described(value: Any) -> str:
    """Write what was found in place of windows; whole numbers may have too many digits for str."""
    try:
        return printable(repr(value), num_letters=100)
    except (ValueError, RecursionError):
        return 'a number too long to be written'
