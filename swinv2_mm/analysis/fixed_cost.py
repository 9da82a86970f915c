"""Run the part of a model whose cost does not depend on the content of the image."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from swinv2_mm.core.torch_private import tree_leaves


@dataclass(frozen=True)
class RoiCounts:
    """Numbers of regions per image that the heads of a two-stage detector are assumed to process.

    Attributes:
        num_boxes: Regions in each box head.
        num_masks: Regions in each mask head.
    """

    num_boxes: int
    num_masks: int


def roi_counts(model: nn.Module, *, training: bool) -> RoiCounts | None:
    """Read the numbers of regions off a detector's config; ``None`` for other models.

    In training the numbers that are sampled; in testing all proposals that are kept, and as many
    masks as detections are kept: upper bounds, reached by crowded images.
    """
    if not hasattr(model, 'roi_head'):
        return None
    if training:
        stages = model.train_cfg.rcnn
        sampler = (stages[0] if isinstance(stages, (list, tuple)) else stages).sampler
        return RoiCounts(sampler.num, int(sampler.num * sampler.pos_fraction))
    return RoiCounts(model.test_cfg.rpn.max_per_img, model.test_cfg.rcnn.max_per_img)


class FixedCost(nn.Module):
    """Run a model from images to the outputs of its heads.

    Left out: losses other than a segmentor's, RoIAlign, the choice of proposals and results
    (NMS), the matching of queries. Region heads are run on ``roi_counts`` empty regions.

    Args:
        model: A classifier, segmentor or detector of mmpretrain, mmseg or mmdet.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return all that the heads put out: (B, 3, H_px, W_px) -> tensors of any shape."""
        if hasattr(self.model, 'roi_head'):
            outputs = self._detect(images)
        elif hasattr(self.model, 'decode_head'):
            outputs = self._segment(images)
        else:
            outputs = self.model(images, _samples(images), mode='tensor')
        return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]

    def _segment(self, images: Tensor) -> list:
        maps = self.model.extract_feat(images)
        heads = [self.model.decode_head]
        if self.training and self.model.with_auxiliary_head:
            auxiliary = self.model.auxiliary_head
            heads += auxiliary if isinstance(auxiliary, nn.ModuleList) else [auxiliary]
        outputs = []
        for head in heads:
            if 'batch_data_samples' in inspect.signature(head.forward).parameters:
                outputs.append(head(maps, _samples(images)))
                continue
            # Scores at full resolution are a large part of a segmentor's memory.
            scores = F.interpolate(head(maps), size=images.shape[-2:], mode='bilinear')
            if self.training:
                labels = scores.new_zeros(scores.shape[:1] + scores.shape[2:], dtype=torch.long)
                scores = F.cross_entropy(scores.float(), labels)
            outputs.append(scores)
        return outputs

    def _detect(self, images: Tensor) -> list:
        roi_head = self.model.roi_head
        counts = roi_counts(self.model, training=self.training)
        maps = self.model.extract_feat(images)
        outputs = [self.model.rpn_head(maps)] if self.model.with_rpn else []
        boxes = _regions(roi_head.bbox_roi_extractor, counts.num_boxes, images)
        outputs += [head(x) for head, x in zip(_stages(roi_head.bbox_head), boxes, strict=False)]
        if getattr(roi_head, 'semantic_head', None) is not None:
            outputs.append(roi_head.semantic_head(maps))
        if not roi_head.with_mask:
            return outputs
        passed_on = None
        masks = _regions(roi_head.mask_roi_extractor, counts.num_masks, images)
        for head, x in zip(_stages(roi_head.mask_head), masks, strict=False):
            if getattr(roi_head, 'mask_info_flow', False):
                # HTC: each mask head hands its features on to the next one.
                scores, passed_on = head(x, passed_on)
            else:
                scores = head(x)
            outputs.append(scores)
        return outputs


def _stages(heads: nn.Module) -> list[nn.Module]:
    """Return the heads of a cascade, or the one head of a plain detector, as a list."""
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def _regions(extractors: nn.Module, count: int, images: Tensor) -> list[Tensor]:
    """Empty features of ``count`` regions per image, for each stage."""
    regions = []
    for extractor in _stages(extractors):
        size = extractor.roi_layers[0].output_size
        size = size if isinstance(size, tuple) else (size, size)
        regions.append(images.new_zeros(count * len(images), extractor.out_channels, *size))
    return regions


def _samples(images: Tensor) -> list[BaseDataElement]:
    """Return data samples for a detector: images without padding."""
    size = tuple(images.shape[-2:])
    meta = dict(img_shape=size, batch_input_shape=size, pad_shape=size, ori_shape=size)
    return [BaseDataElement(metainfo=dict(meta, scale_factor=(1.0, 1.0))) for _ in images]
