"""List the released weights by name (github.com/microsoft/Swin-Transformer).

Those of the SimMIM family lie at huggingface.co/zdaxie/SimMIM.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePath

from swinv2_mm.core.window_partition import Size

from .errors import CheckpointError

_RELEASES = 'https://github.com/SwinTransformer/storage/releases/download/v2.0.0/'
_SIMMIM = 'https://huggingface.co/zdaxie/SimMIM/resolve/main/'
_PATCH_SIZE_PX = 4
_NUM_STAGES = 4


@dataclass(frozen=True, kw_only=True)
class ReleasedModel:
    """One released file.

    Attributes:
        name: Ours, such as ``swinv2-base-w12-192_in22k``.
        file_name: The official one, without ``.pth``.
        timm_name: The name of timm's copy, without its tag; ``None`` if there is none.
        arch: Name of the architecture.
        window_size: Window that the last training ran at, in tokens.
        image_size_px: Image side of the last training.
        num_classes: Outputs of the classification head; 0 without one.
        top1: Published accuracy on ImageNet-1K val in percent (MMClassification 0.x, as the
            official hub rounds to a tenth; SimMIM: the hub), at ``window_size`` and
            ``image_size_px``; ``None`` for ImageNet-22K heads and SimMIM pre-training.
        pretrained_window_sizes: Window per stage that the position bias was trained at.
    """

    name: str
    file_name: str
    timm_name: str | None = None
    arch: str
    window_size: int
    image_size_px: int
    num_classes: int = 1000
    top1: float | None = None
    pretrained_window_sizes: tuple[Size, ...]
    folder_url: str = _RELEASES

    @property
    def url(self) -> str:
        """Where the official file is."""
        return f'{self.folder_url}{self.file_name}.pth'


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
        top1=top1,
        pretrained_window_sizes=window_per_stage(12, image_size_px=192),
    )


# Top-1 of the fine-tuned models (official model hub), pre-trained for 125,000, 250,000 and 500,000
# steps on ImageNet-1K, on a part of its images, or on ImageNet-22K.
_SIMMIM_TOP1 = {
    'small': {
        '1kper10': (82.69, 83.11, 83.17),
        '1kper20': (83.05, 83.56, 83.75),
        '1kper50': (83.04, 83.67, 83.96),
        '1k': (82.92, 83.66, 84.08),
    },
    'base': {
        '1kper10': (83.33, 83.6, 83.41),
        '1kper20': (83.86, 84.37, 84.61),
        '1kper50': (84.04, 84.57, 84.95),
        '1k': (84.13, 84.65, 85.04),
        '22k': (84.11, 84.57, 85.11),
    },
    'large': {
        '1kper10': (83.69, 83.66, 83.5),
        '1kper20': (84.38, 84.71, 84.59),
        '1kper50': (84.78, 85.38, 85.8),
        '1k': (84.98, 85.45, 85.91),
        '22k': (84.61, 85.39, 85.81),
    },
    'huge': {
        '1kper20': (84.35, 84.16, 83.44),
        '1kper50': (85.09, 85.64, 85.69),
        '1k': (85.23, 85.9, 86.34),
        '22k': (85.14, 85.86, 86.27),
    },
    'simmim_giant': {
        '1kper50': (85.44, 85.76, 85.51),
        '1k': (85.57, 86.12, 86.46),
        '22k': (85.39, 85.96, 86.53),
    },
}
_SIMMIM_STEPS = (125, 250, 500)


def _simmim(arch: str, data: str, steps: int, top1: float) -> tuple[ReleasedModel, ReleasedModel]:
    """Return a pre-trained model of the SimMIM family and the one fine-tuned from it."""
    official = f'swinv2_{arch.removeprefix("simmim_")}_{data}_{steps}k'
    name, run = arch.replace('_', '-'), f'simmim-in{data.replace("per", "-per")}-{steps}k'
    windows = window_per_stage(12, image_size_px=192)
    pretrained = ReleasedModel(
        name=f'swinv2-{name}-w12-192_{run}',
        file_name=official,
        arch=arch,
        window_size=12,
        image_size_px=192,
        num_classes=0,
        pretrained_window_sizes=windows,
        folder_url=f'{_SIMMIM}simmim_swinv2_pretrain_models/',
    )
    tuned = ReleasedModel(
        name=f'swinv2-{name}-w14-224_{run}-ft-in1k',
        file_name=f'finetune_{official}',
        arch=arch,
        window_size=14,
        image_size_px=224,
        top1=top1,
        pretrained_window_sizes=windows,
        folder_url=f'{_SIMMIM}simmim_swinv2_finetune_models/',
    )
    return pretrained, tuned


_PAPER = {
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

_FAMILY = {
    model.name: model
    for arch, runs in _SIMMIM_TOP1.items()
    for data, scores in runs.items()
    for steps, top1 in zip(_SIMMIM_STEPS, scores, strict=True)
    for model in _simmim(arch, data, steps, top1)
}
RELEASED = _PAPER | _FAMILY


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
    raise CheckpointError(
        f"unknown weights '{name}'{hint} (known: {', '.join(_PAPER)}, and {len(_FAMILY)} of the "
        'SimMIM family, listed in docs/model_zoo.md)'
    )
