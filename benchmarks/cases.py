"""Benchmark cases: sizes of model, image and window by name, and whole models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from swinv2_mm.core.architectures import ARCHITECTURES, Architecture
from swinv2_mm.core.window_partition import Size
from swinv2_mm.errors import UserError

_ARCHES = {name[0]: name for name in ARCHITECTURES}
_PATTERN = re.compile(r'([tsblhg])-(\d+)(?:x(\d+))?-w(\d+)')
_PATCH_PX = 4

# Images at once on a GPU and on a CPU. Any other case of the same form takes one.
BATCHES = {
    't-256-w8': (64, 4),
    't-256-w16': (64, 4),
    'b-384-w24': (16, 1),
    'l-640-w40': (4, 1),
    't-1024-w32': (4, 1),
    'l-1024-w32': (2, 1),
    # 1333 px, extended to a multiple of 32 as MMDetection does.
    't-800x1344-w16': (2, 1),
    'g-1536-w32': (1, 1),
}
# Without G, which needs 80 GB; ask for it by name.
DEFAULT_CASES = tuple(name for name in BATCHES if name != 'g-1536-w32')
# The recipe of each whole model, under configs/.
TASKS = {
    'cascade-mask-rcnn': 'detection/cascade-mask-rcnn_swinv2-t-w16_fpn_1x_coco.py',
    'upernet': 'segmentation/upernet_swinv2-t-w16_8xb2-160k_ade20k-512.py',
}
_TASK_SIZES_PX = {'cascade-mask-rcnn': (800, 1344), 'upernet': (512, 512)}


@dataclass(frozen=True)
class Case:
    """One size of everything.

    Attributes:
        name: As on the command line.
        arch: Architecture of the backbone.
        size_px: Height and width of an image.
        window: Side of a window in tokens, before it is clipped to small maps.
        batch: Images at once.
        task: Key of ``TASKS``; ``None`` for the backbone alone.
    """

    name: str
    arch: Architecture
    size_px: Size
    window: int
    batch: int
    task: str | None = None

    @property
    def clipped_windows(self) -> tuple[Size, ...]:
        """Window of each stage, no larger than its map."""
        sides, windows = [-(-side // _PATCH_PX) for side in self.size_px], []
        for _ in self.arch.depths:
            windows.append(tuple(min(self.window, side) for side in sides))
            sides = [-(-side // 2) for side in sides]
        return tuple(windows)


def parse_case(
    name: str,
    *,
    on_gpu: bool,
    batch: int | None = None,
    depths: Sequence[int] | None = None,
    size_px: Sequence[int] | None = None,
) -> Case:
    """Turn a name such as ``t-800x1344-w16`` or ``upernet`` into a case.

    Args:
        name: ARCH-HEIGHTxWIDTH-wWINDOW (or one side) with the first letter of an arch, or a task.
        on_gpu: Whether the batch is that for a GPU.
        batch: In place of the usual one.
        depths: Blocks per stage, in place of the arch's.
        size_px: Height and width, in place of the name's.

    Raises:
        UserError: If there is no such case.
    """
    if name in TASKS:
        # Its pyramid pooling needs two images for its batch norm.
        usual = 1 if name == 'cascade-mask-rcnn' and not on_gpu else 2
        size, window, letter = _TASK_SIZES_PX[name], 16, 't'
    else:
        match = _PATTERN.fullmatch(name)
        if match is None:
            raise UserError(
                f"unknown case '{name}': write ARCH-SIZE-wWINDOW, such as t-256-w8 or "
                f't-800x1344-w16, or one of {", ".join(TASKS)}'
            )
        letter, height, width, side = match.groups()
        size, window = (int(height), int(width or height)), int(side)
        usual = BATCHES.get(name, (1, 1))[0 if on_gpu else 1]
    arch = ARCHITECTURES[_ARCHES[letter]]
    if depths is not None:
        if len(depths) != len(arch.depths) or min(depths) < 1:
            raise UserError(f'--depths takes {len(arch.depths)} positive numbers, one per stage')
        arch = replace(arch, depths=tuple(depths))
    size = tuple(size_px or size)
    if min(*size, window, usual if batch is None else batch) < 1:
        raise UserError(f'case {name}: sides, window and batch must be positive')
    task = name if name in TASKS else None
    return Case(name, arch, size, window, batch or usual, task)
