"""Measure the parameters, FLOPs and memory of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from swinv2_mm.checkpoint.heads import find_head
from swinv2_mm.checkpoint.loading import find_backbones
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.architectures import resolve_architecture
from swinv2_mm.errors import UserError

from .conventions import mmcls_flops, official_flops
from .fake_model import build_fake, fake_images
from .fixed_cost import FixedCost, RoiCounts, roi_counts
from .memory import MemoryEstimate, estimate_memory
from .operations import count_macs

Size = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """A module of the model.

    Attributes:
        name: Its name in the model.
        params: Its parameters.
        macs: Multiply-accumulates per image that run in it.
    """

    name: str
    params: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """What a model costs. Operations are multiply-accumulates per image.

    Attributes:
        size_px: Height and width of the image.
        batch: Images at once, for the memory.
        params: All parameters.
        backbone_params: Parameters of the SwinV2 in it.
        macs: What runs in an inference (``operations.count_macs``).
        official_flops: By the formula of the official code: the SwinV2, and the linear head of a
            classifier.
        mmcls_flops: By the convention of the MMClassification pages: backbone and neck.
        parts: The model's main modules in their order.
        roi_counts: Regions that a two-stage detector is taken to see, if it is one.
        memory: Memory of the whole batch; ``None`` if not asked for.
    """

    size_px: Size
    batch: int
    params: int
    backbone_params: int
    macs: int
    official_flops: float
    mmcls_flops: float
    parts: tuple[Part, ...]
    roi_counts: RoiCounts | None
    memory: MemoryEstimate | None


def classifier_cfg(arch: str | dict, *, window_size: int, num_classes: int) -> dict:
    """Return the config of a plain SwinV2 classifier, the model of the published tables."""
    try:
        channels = resolve_architecture(arch).dims[-1]
    except ValueError as error:
        raise UserError(f'--arch: {error}') from error
    backbone = dict(type='SwinV2', arch=arch, window_size=window_size, out_indices=(3,))
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=channels)
    neck = dict(type='GlobalAveragePooling')
    return dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)


def measure(
    model_cfg: dict,
    *,
    scope: str,
    size_px: Size,
    batch: int = 1,
    amp: bool = False,
    with_memory: bool = True,
) -> Complexity:
    """Measure a model without allocating it.

    Args:
        model_cfg: ``model`` of a config.
        scope: Library that builds it: mmpretrain, mmseg or mmdet.
        size_px: Height and width of the image.
        batch: Images at once, for the memory.
        amp: Whether the memory is that of mixed precision.
        with_memory: Whether to estimate the memory, which takes longer than the rest.

    Raises:
        UserError: If the config is not valid, or its model holds no SwinV2.
    """
    model = build_fake(model_cfg, scope=scope)
    backbones = find_backbones(model)
    if not backbones:
        raise UserError('the model of this config has no SwinV2 backbone')
    backbone = backbones[0]
    network = FixedCost(model)
    macs = count_macs(network, fake_images(model, batch=1, size_px=size_px))
    head = find_head(model)
    num_classes = 0 if head is None else head[1].out_features
    memory = None
    if with_memory:
        images = fake_images(model, batch=batch, size_px=size_px)
        memory = estimate_memory(network, images, amp=amp)
    parts = tuple(_parts(model, macs))
    # A head's branches may be called past the head (DINO chooses its queries so).
    rest = macs[''] - sum(part.macs for part in parts)
    if rest:
        parts += (Part('(elsewhere)', 0, rest),)
    return Complexity(
        size_px=size_px,
        batch=batch,
        params=_num_params(model),
        backbone_params=_num_params(backbone),
        macs=macs[''],
        official_flops=official_flops(backbone, size_px=size_px, num_classes=num_classes),
        mmcls_flops=mmcls_flops(model, size_px=size_px, backbone=backbone),
        parts=parts,
        roi_counts=roi_counts(model, training=False),
        memory=memory,
    )


def _num_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _parts(model: nn.Module, macs: Counter[str]) -> Iterator[Part]:
    """The model's children; in place of a SwinV2 its stages, of an RoI head its heads."""
    for name, child in model.named_children():
        if not isinstance(child, SwinTransformerV2) and name != 'roi_head':
            yield from _part(name, child, macs)
            continue
        for inner, module in child.named_children():
            if inner != 'layers':
                yield from _part(f'{name}.{inner}', module, macs)
                continue
            for i, stage in enumerate(module):
                stage_name = f'{name}.layers.{i}'
                # The backbone, not the stage, calls the merging after it.
                yield Part(stage_name, _num_params(stage.blocks), macs[stage_name])
                if stage.downsample is not None:
                    yield from _part(f'{stage_name}.downsample', stage.downsample, macs)


def _part(name: str, module: nn.Module, macs: Counter[str]) -> Iterator[Part]:
    """A module as a part, unless it has no weights."""
    num_params = _num_params(module)
    if num_params:
        # A list is never called itself.
        called = [name]
        if isinstance(module, nn.ModuleList):
            called = [f'{name}.{i}' for i in range(len(module))]
        yield Part(name, num_params, sum(macs[n] for n in called))
