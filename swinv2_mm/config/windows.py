"""Parse the window sizes that a user writes."""

from __future__ import annotations

import re

from swinv2_mm.errors import UserError


def parse_window_size(text: str) -> int | tuple:
    """Read ``16``, ``16x8`` (height, width), or one of these per stage, ``16,16,16,8``.

    Returns:
        What ``set_window_size`` of a backbone takes: a side, or windows per stage; a single
        ``((16, 8),)`` stands for all stages.

    Raises:
        UserError: If it is something else.
    """
    if not re.fullmatch(r'\d+(x\d+)?(,\d+(x\d+)?)*', text):
        raise UserError(f"--window-size takes N, HxW or one of these per stage, got '{text}'")
    stages = [tuple(int(side) for side in stage.split('x')) for stage in text.split(',')]
    windows = tuple(sides[0] if len(sides) == 1 else sides for sides in stages)
    return windows[0] if len(windows) == 1 and isinstance(windows[0], int) else windows
