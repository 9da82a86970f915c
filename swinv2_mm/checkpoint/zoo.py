"""List the released weights by name (github.com/microsoft/Swin-Transformer)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePath

from swinv2_mm.core.window_partition import Size

from .errors import CheckpointError

_RELEASES = 'https://github.com/SwinTransformer/storage/releases/download/v2.0.0/'
_PATCH_SIZE_PX = 4
_NUM_STAGES = 4


@dataclass(frozen=True)
class ReleasedModel:
    """One released file.

    Attributes:
        name: Ours, such as ``swinv2-base-w12-192_in22k``.
        file_name: The official one, without ``.pth``.
        timm_name: The name of timm's copy, without its tag.
        arch: Name of the architecture.
        window_size: Window that the last training ran at, in tokens.
        image_size_px: Image side of the last training.
        num_classes: Outputs of the classification head.
        top1: Published accuracy on ImageNet-1K val in percent (MMClassification 0.x; the
            official hub rounds to a tenth), at
            ``window_size`` and ``image_size_px``; ``None`` for ImageNet-22K heads.
        pretrained_window_sizes: Window per stage that the position bias was trained at.
    """

    name: str
    file_name: str
    timm_name: str
    arch: str
    window_size: int
    image_size_px: int
    num_classes: int
    top1: float | None
    pretrained_window_sizes: tuple[Size, ...]

    @property
    def url(self) -> str:
        """Where the official file is."""
        return f'{_RELEASES}{self.file_name}.pth'


def window_per_stage(window_size: int, *, image_size_px: int) -> tuple[Size, ...]:
    """Clip a window to the map of each stage, as released models were trained.

    Args:
        window_size: In tokens.
        image_size_px: Side of the square images in training.
    """
    maps = (image_size_px // (_PATCH_SIZE_PX * 2**stage) for stage in range(_NUM_STAGES))
    return tuple((min(window_size, side),) * 2 for side in maps)


def _scratch(arch: str, window: int, top1: float) -> ReleasedModel:
    return ReleasedModel(
        name=f'swinv2-{arch}-w{window}-256_in1k',
        file_name=f'swinv2_{arch}_patch4_window{window}_256',
        timm_name=f'swinv2_{arch}_window{window}_256',
        arch=arch,
        window_size=window,
        image_size_px=256,
        num_classes=1000,
        top1=top1,
        pretrained_window_sizes=window_per_stage(window, image_size_px=256),
    )


def _pretrained(arch: str) -> ReleasedModel:
    return ReleasedModel(
        name=f'swinv2-{arch}-w12-192_in22k',
        file_name=f'swinv2_{arch}_patch4_window12_192_22k',
        timm_name=f'swinv2_{arch}_window12_192',
        arch=arch,
        window_size=12,
        image_size_px=192,
        num_classes=21841,
        top1=None,
        pretrained_window_sizes=window_per_stage(12, image_size_px=192),
    )


def _fine_tuned(arch: str, window: int, image_size_px: int, top1: float) -> ReleasedModel:
    sizes = f'window12to{window}_192to{image_size_px}'
    return ReleasedModel(
        name=f'swinv2-{arch}-w{window}-{image_size_px}_in22k-ft-in1k',
        file_name=f'swinv2_{arch}_patch4_{sizes}_22kto1k_ft',
        timm_name=f'swinv2_{arch}_{sizes}',
        arch=arch,
        window_size=window,
        image_size_px=image_size_px,
        num_classes=1000,
        top1=top1,
        pretrained_window_sizes=window_per_stage(12, image_size_px=192),
    )


RELEASED = {
    model.name: model
    for model in (
        _scratch('tiny', 8, 81.76),
        _scratch('tiny', 16, 82.81),
        _scratch('small', 8, 83.74),
        _scratch('small', 16, 84.13),
        _scratch('base', 8, 84.2),
        _scratch('base', 16, 84.6),
        _pretrained('base'),
        _fine_tuned('base', 16, 256, 86.17),
        _fine_tuned('base', 24, 384, 87.14),
        _pretrained('large'),
        _fine_tuned('large', 16, 256, 86.93),
        _fine_tuned('large', 24, 384, 87.59),
    )
}


def find_released(name: str) -> ReleasedModel | None:
    """Look a model up by our name, or by the name that the authors, timm or Hugging Face gave it.

    Args:
        name: Also a path that ends in such a name, with or without a suffix or timm's tag.
    """
    if name in RELEASED:
        return RELEASED[name]
    stem = PurePath(name).name.replace('-', '_').split('.')[0]
    return next((m for m in RELEASED.values() if stem in (m.file_name, m.timm_name)), None)


def url_of(name: str) -> str | None:
    """Return where the weights of that name are; ``None`` if it cannot be such a name.

    Raises:
        CheckpointError: If the name is like one of ours, but is not one.
    """
    if name in RELEASED:
        return RELEASED[name].url
    if not name.startswith('swinv2-') or PurePath(name).suffix or '/' in name:
        return None
    close = difflib.get_close_matches(name, RELEASED, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ''
    raise CheckpointError(f"unknown weights '{name}'{hint} (known: {', '.join(RELEASED)})")
