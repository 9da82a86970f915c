"""Extract the part of a trained model that is exported: pixels to logits, detections or maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from swinv2_mm.errors import UserError
from swinv2_mm.libraries import LIBRARIES

from .deformable import replace_deformable
from .detectors import one_stage, two_stage, widen_single_channels
from .dino import dino
from .global_attention import replace_global_attention
from .mask2former import mask2former
from .pooling import replace_pools
from .regions import replace_extractors

Part = Literal[
    'classifier', 'segmentor', 'backbone', 'two-stage', 'one-stage', 'dino', 'mask2former'
]
# A model of mmpretrain, mmsegmentation or mmdet: these packages have no types.
LibraryModel = Any

# Function that predicts on the maps of the neck, for each family of detectors.
DETECTORS: Mapping[str, Callable[..., dict[str, Tensor]]] = {
    'two-stage': two_stage,
    'one-stage': one_stage,
    'dino': dino,
    'mask2former': mask2former,
}
# mmdet's own test path branches on the values of tensors, which a graph cannot hold.
WHY_NO_DETECTOR = (
    'detectors of this kind have no test path on tensors alone, so only the backbone is exported'
)


def whole_part(model: LibraryModel) -> Part | None:
    """Return what a model is if all of it can be exported, else ``None``."""
    names = [cls.__name__ for cls in type(model).__mro__]
    parts = (library.exported_whole.items() for library in LIBRARIES.values())
    found = next((part for name, part in chain(*parts) if name in names), None)
    return cast('Part | None', found)


class _OpenSize(tuple[int, ...]):
    """Height and width of a graph of open size: MMEngine copies metainfo, and they cannot be."""

    def __deepcopy__(self, memo: object) -> _OpenSize:
        return self


class ExportedModel(nn.Module):
    """From a batch of images to logits, detections, or feature maps of the backbone.

    Args:
        model: A model of mmpretrain, mmsegmentation or mmdet; it stays as it is.
        part: What is computed.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, model: LibraryModel, *, part: Part) -> None:
        super().__init__()
        self.part = part
        preprocessor = model.data_preprocessor
        # mmpretrain's preprocessor for classifiers has a name of its own for it.
        converts = getattr(preprocessor, '_channel_conversion', None)
        converts = preprocessor.to_rgb if converts is None else converts
        # Images are loaded as BGR: a model that does not convert them was trained on that.
        self.takes_bgr = not converts
        has_statistics = getattr(preprocessor, '_enable_normalize', True)
        self.register_buffer('mean', preprocessor.mean.clone() if has_statistics else None)
        self.register_buffer('std', preprocessor.std.clone() if has_statistics else None)
        self.divisor = _divisor(preprocessor)
        self.model: Any = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the model.

        Shapes:
            images (B, 3, H_px, W_px), RGB in 0 to 255 -> (B, classes), (B, classes, H_px, W_px),
            a map per stage, or what ``output_names`` lists of a detector
        """
        x = images.flip(1) if self.takes_bgr else images
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        if self.part == 'classifier':
            return (self.model(x, mode='tensor'),)
        if self.part == 'backbone':
            return tuple(self.model.backbone(x))
        height, width = x.shape[2:]
        if self.divisor > 1:
            x = F.pad(x, (0, -width % self.divisor, 0, -height % self.divisor))
        if self.part == 'segmentor':
            logits = self.model.encode_decode(x, [dict(img_shape=_OpenSize(x.shape[2:]))])
            return (logits[:, :, :height, :width],)
        feats = self.model.extract_feat(x)
        outputs = DETECTORS[self.part](self.model, feats, size=(height, width))
        found = tuple(outputs[name] for name in self.output_names)
        return found if self.part in _BATCHED else tuple(output[None] for output in found)

    @property
    def output_names(self) -> list[str]:
        """Names of what ``forward`` returns."""
        if self.part == 'backbone':
            return [f'stage{i}' for i in self.model.backbone.out_indices]
        if self.part not in DETECTORS:
            return ['logits']
        boxes = ['boxes', 'scores', 'labels']
        if self.part == 'mask2former':
            settings = self.model.panoptic_fusion_head.test_cfg
            instances = [*boxes, 'masks'] if settings.get('instance_on', False) else []
            panoptic = ['panoptic'] if settings.get('panoptic_on', True) else []
            return [*instances, *panoptic, 'class_logits', 'mask_logits']
        has_masks = self.part == 'two-stage' and self.model.roi_head.with_mask
        return [*boxes, *(['masks', 'mask_shapes'] if has_masks else [])]

    @property
    def has_open_batch(self) -> bool:
        """Whether several images go together."""
        # The number of detections differs by image, and attention by queries fixes the batch.
        return self.part not in DETECTORS and not self._has_queries

    @property
    def smallest_px(self) -> int:
        """The least side of an image, where sizes are left open."""
        # torch asks whether the last map, of stride 32 or DINO's 64, is a single row or column.
        if self.part == 'dino':
            return 65
        return 33 if self._has_queries else 1

    @property
    def _has_queries(self) -> bool:
        """Whether it is a Mask2Former, for whichever task."""
        return any(type(x).__name__ == 'MSDeformAttnPixelDecoder' for x in self.modules())


# Detectors that compute a batch of images.
_BATCHED = ('dino', 'mask2former')


def _divisor(preprocessor: Any) -> int:
    """Return what the sides of images are padded to a multiple of."""
    of_test: dict[str, int] = getattr(preprocessor, 'test_cfg', None) or {}
    return of_test.get('size_divisor', 0) or int(getattr(preprocessor, 'pad_size_divisor', 1))


def traceable(model: ExportedModel, *, fixed_px: tuple[int, int] | None) -> ExportedModel:
    """Return a copy that ``torch.export`` can follow, with fixed position biases.

    Args:
        model: The original.
        fixed_px: Height and width of all images; ``None`` if they are left open.

    Raises:
        UserError: If the windows of the backbone depend on a size that is left open.
    """
    model = copy.deepcopy(model)
    backbone = model.model.backbone
    if fixed_px is None and any(stage.tiling != 'fixed' for stage in backbone.layers):
        raise UserError(
            "the windows of tiling='balanced' follow the image size: export with a fixed "
            '--shape instead of --dynamic'
        )
    if fixed_px is not None:
        # Images are padded.
        fixed_px = fixed_px[0] + model.divisor, fixed_px[1] + model.divisor
    backbone.bake_position_bias(largest_px=fixed_px)
    if model.part != 'backbone':
        replace_pools(model.model)
        replace_extractors(model.model)
        replace_deformable(model.model)
        replace_global_attention(model.model)
        widen_single_channels(model.model)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def reference(model: LibraryModel, image: Tensor, *, part: Part) -> dict[str, Tensor]:
    """Run the untouched model the way its library does.

    Args:
        model: The model.
        image: BGR, as the data pipeline loads it; (3, H_px, W_px), uint8.
        part: What is computed.

    Returns:
        Outputs by their names.
    """
    if part in DETECTORS:
        return _detected(model, image)
    samples = None
    if part == 'segmentor':
        from mmseg.structures import SegDataSample

        samples = [SegDataSample()]
    with DefaultScope.overwrite_default_scope(None):
        x = model.data_preprocessor({'inputs': [image], 'data_samples': samples})['inputs']
    height, width = image.shape[1:]
    if part == 'segmentor':
        logits = model.encode_decode(x, [dict(img_shape=tuple(x.shape[2:]))])
        return {'logits': logits[:, :, :height, :width]}
    if x.shape[2:] != image.shape[1:]:
        raise UserError(
            f'this model pads an image of {height} x {width} px to {x.shape[2]} x {x.shape[3]}: '
            'choose a --shape that it takes as it is'
        )
    if part == 'classifier':
        return {'logits': model(x, mode='tensor')}
    return dict(zip(ExportedModel(model, part=part).output_names, model.backbone(x), strict=True))


def _detected(model: LibraryModel, image: Tensor) -> dict[str, Tensor]:
    """Detect in an image that was not resized."""
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[1:])
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
    with DefaultScope.overwrite_default_scope(None):
        data = model.data_preprocessor({'inputs': [image], 'data_samples': [sample]})
    found = model.predict(data['inputs'], data['data_samples'])[0]
    outputs = {}
    if 'pred_instances' in found:
        instances = found.pred_instances
        names = {'boxes': 'bboxes', 'scores': 'scores', 'labels': 'labels', 'masks': 'masks'}
        outputs = {ours: instances[theirs] for ours, theirs in names.items() if theirs in instances}
    if 'pred_panoptic_seg' in found:
        outputs['panoptic'] = found.pred_panoptic_seg.sem_seg[0]
    return {name: output[None] for name, output in outputs.items()}
