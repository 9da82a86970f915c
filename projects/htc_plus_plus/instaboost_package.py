"""Work around the limits of the package ``instaboostfast``."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from swinv2_mm.errors import UserError

_FLIPS = ('horizontal', 'vertical')
_ACTIONS = ('normal', *_FLIPS, 'skip')


def exact_rates(rates: Mapping[str, float]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Turn relative frequencies of actions into probabilities that the package accepts.

    It asserts that they add up to 1 in floating point, and asserts it again of those that are left
    when flips are taken out, divided by their sum. Rounding to a binary fraction settles the first
    and, at one of the resolutions tried, the second.

    Raises:
        ValueError: If an action is unknown, a frequency negative, or nothing but flips is left.
    """
    unknown = set(rates) - set(_ACTIONS)
    if unknown:
        raise ValueError(f'action_rates takes {", ".join(_ACTIONS)}, not {sorted(unknown)}')
    actions = tuple(rates)
    values = np.array([rates[action] for action in actions], dtype=np.float64)
    unflipped = np.array([action not in _FLIPS for action in actions], dtype=bool)
    if not np.isfinite(values).all() or (values < 0).any() or values[unflipped].sum() == 0:
        raise ValueError(
            'action_rates must not be negative, and normal or skip must be above 0 (groups near '
            f'the edge of the image are not flipped), got {dict(rates)}'
        )
    values = values / values.sum()
    largest = int(np.where(unflipped, values, -1).argmax())
    for bits in range(20, 50):
        rounded = np.round(values * 2.0**bits) / 2.0**bits
        rounded[largest] += 1.0 - rounded.sum()
        rest = rounded[unflipped]
        if np.sum(rounded) == 1 and np.sum(rest / np.sum(rest)) == 1 and (rounded >= 0).all():
            return actions, tuple(rounded.tolist())
    raise ValueError(f'action_rates {dict(rates)} have no exact sum; use rounder numbers')


def import_package() -> ModuleType:
    """Import ``instaboostfast`` without its side effect, a changed backend of matplotlib."""
    try:
        import matplotlib.pyplot as plt

        backend = plt.get_backend()
        import instaboostfast
    except ImportError as error:
        raise UserError(
            f'CheckedInstaBoost needs {error.name}, which is not installed: pip install '
            'instaboostfast==0.1.2 (with --no-deps where OpenCV is the headless one)'
        ) from error
    if plt.get_backend() != backend:
        plt.switch_backend(backend)
    return instaboostfast


def uncompressed_rle(mask: np.ndarray) -> dict:
    """Encode a mask as the one kind of RLE that the package reads."""
    flat = mask.ravel(order='F').astype(bool)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {'counts': [0, *counts] if flat[0] else counts, 'size': list(mask.shape)}
