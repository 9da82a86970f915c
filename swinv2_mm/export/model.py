"""Extract the part of a trained model that is exported: pixels to logits, or to feature maps."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, Literal, cast

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from swinv2_mm.errors import UserError
from swinv2_mm.libraries import LIBRARIES

from .pooling import replace_pools

Part = Literal['classifier', 'segmentor', 'backbone']
# A model of mmpretrain, mmsegmentation or mmdet: these packages have no types.
LibraryModel = Any

# Tried: torch.export stops at `if not valid_mask.all()` in mmdet/models/dense_heads/rpn_head.py.
WHY_NO_DETECTOR = (
    "mmdet's test path branches on the values of tensors (rpn_head.py: `if not valid_mask.all()`), "
    'which a graph cannot hold, so only the backbone of a detector is exported'
)


def whole_part(model: LibraryModel) -> Part | None:
    """Return what a model is if all of it can be exported, else ``None``."""
    names = [cls.__name__ for cls in type(model).__mro__]
    parts = (library.exported_whole.items() for library in LIBRARIES.values())
    found = next((part for name, part in chain(*parts) if name in names), None)
    return cast('Part | None', found)


class ExportedModel(nn.Module):
    """From a batch of images to logits (classifier, segmentor) or feature maps (backbone).

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
        self.model: Any = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the model.

        Shapes:
            images (B, 3, H_px, W_px), RGB in 0 to 255 -> (B, classes), (B, classes, H_px, W_px)
            or a map per stage
        """
        x = images.flip(1) if self.takes_bgr else images
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        if self.part == 'classifier':
            return (self.model(x, mode='tensor'),)
        if self.part == 'segmentor':
            return (self.model.encode_decode(x, [dict(img_shape=tuple(x.shape[2:]))]),)
        return tuple(self.model.backbone(x))

    @property
    def output_names(self) -> list[str]:
        """Names of what ``forward`` returns."""
        if self.part == 'backbone':
            return [f'stage{i}' for i in self.model.backbone.out_indices]
        return ['logits']


def traceable(model: ExportedModel, *, has_fixed_size: bool) -> ExportedModel:
    """Return a copy that ``torch.export`` can follow, with fixed position biases.

    Args:
        model: The original.
        has_fixed_size: Whether all images will have one height and width.

    Raises:
        UserError: If the windows of the backbone depend on a size that is left open.
    """
    model = copy.deepcopy(model)
    backbone = model.model.backbone
    if not has_fixed_size and any(stage.tiling != 'fixed' for stage in backbone.layers):
        raise UserError(
            "the windows of tiling='balanced' follow the image size: export with a fixed "
            '--shape instead of --dynamic'
        )
    backbone.bake_position_bias()
    if model.part != 'backbone':
        replace_pools(model.model)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def reference(model: LibraryModel, image: Tensor, *, part: Part) -> list[Tensor]:
    """Run the untouched model the way its library does.

    Args:
        model: The model.
        image: BGR, as the data pipeline loads it; (3, H_px, W_px), uint8.
        part: What is computed.
    """
    with DefaultScope.overwrite_default_scope(None):
        x = model.data_preprocessor({'inputs': [image], 'data_samples': None})['inputs']
    if x.shape[2:] != image.shape[1:]:
        raise UserError(
            f'this model pads an image of {image.shape[1]} x {image.shape[2]} px to '
            f'{x.shape[2]} x {x.shape[3]}: choose a --shape that it takes as it is'
        )
    if part == 'classifier':
        return [model(x, mode='tensor')]
    if part == 'segmentor':
        return [model.encode_decode(x, [dict(img_shape=tuple(x.shape[2:]))])]
    return list(model.backbone(x))
