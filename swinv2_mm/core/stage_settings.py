"""Settings of a backbone: choices are validated, values are spread over its stages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, get_args

from .attention.window_attention import Similarity
from .blocks import NormOrder
from .position_bias import POSITION_BIASES, PositionBias
from .window_partition import Size, Tiling

WindowSize = int | Sequence[int | Sequence[int]]


def check_choices(
    *,
    position_bias: PositionBias,
    tiling: Tiling,
    norm_order: NormOrder,
    similarity: Similarity,
    attention: str | Sequence[str],
) -> None:
    """Validate the settings that have a few values.

    Raises:
        ValueError: If one is unknown, or does not go with another.
    """
    if position_bias not in POSITION_BIASES:
        known = ', '.join(POSITION_BIASES)
        raise ValueError(f"unknown position_bias '{position_bias}' (known: {known})")
    for setting, value, choices in (
        ('tiling', tiling, get_args(Tiling)),
        ('norm_order', norm_order, get_args(NormOrder)),
        ('similarity', similarity, get_args(Similarity)),
    ):
        if value not in choices:
            raise ValueError(f"{setting} must be one of {', '.join(choices)}, got '{value}'")
    if similarity == 'dot' and attention != 'auto':
        raise ValueError("similarity='dot' has one backend only: leave attention at 'auto'")


def check_stages(out_indices: tuple[int, ...], *, frozen_stages: int, num_stages: int) -> None:
    """Validate the numbers of stages that are returned and that are frozen.

    Raises:
        ValueError: If there are no such stages, or the returned ones are not in order.
    """
    if not out_indices or out_indices != tuple(i for i in range(num_stages) if i in out_indices):
        raise ValueError(
            f'out_indices must name stages from 0 to {num_stages - 1} in rising order, got '
            f'{out_indices}'
        )
    if not -1 <= frozen_stages < num_stages:
        raise ValueError(
            f'frozen_stages must be from -1 (none) to {num_stages - 1}, got {frozen_stages}'
        )


def per_stage(value: Any, num_stages: int, *, name: str) -> tuple[Any, ...]:
    """Repeat a single value for every stage.

    Raises:
        ValueError: If ``value`` is a sequence of another length.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * num_stages
    if len(value) != num_stages:
        raise ValueError(f'{name} needs one value or {num_stages}, one per stage, got {value}')
    return tuple(value)


def window_per_stage(
    value: WindowSize, *, num_stages: int, num_axes: int, name: str
) -> tuple[Size, ...]:
    """Spread windows over the stages: one side, one window, or one of either per stage.

    Args:
        value: As of ``SwinTransformerV2``.
        num_stages: How many are returned.
        num_axes: Sides of a window; three for a video.
        name: Name of the setting, for messages.

    Raises:
        ValueError: If ``value`` is not one positive window per stage.
    """
    sizes = []
    if isinstance(value, Sequence) and len(value) == 1:
        # One window of unequal sides for all stages, ``[(16, 8)]``.
        value = [*value] * num_stages
    for entry in per_stage(value, num_stages, name=name):
        sides = tuple(entry) if isinstance(entry, Sequence) else (entry,) * num_axes
        positive = all(type(side) is int and side > 0 for side in sides)
        if len(sides) != num_axes or not positive:
            axes = ', '.join(('time', 'height', 'width')[-num_axes:])
            raise ValueError(
                f'{name} must be positive whole numbers of tokens, or ({axes}) of them, got {value}'
            )
        sizes.append(sides)
    return tuple(sizes)


def join_stages(words: Sequence[str]) -> str:
    """Describe stages, neighbours that are alike together: ``stages 0-2 x, stage 3 y``."""
    parts, first = [], 0
    for word, members in groupby(words):
        last = first + len(list(members)) - 1
        stages = f'stage {first}' if first == last else f'stages {first}-{last}'
        parts.append(f'{stages} {word}')
        first = last + 1
    return ', '.join(parts)
