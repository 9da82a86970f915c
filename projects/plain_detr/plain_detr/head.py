"""Losses of Plain DETR: hybrid matching on boxes in pixels."""

import copy
from typing import Any

import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmdet.utils import InstanceList, reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import pad

from .boxes import encode_boxes

Outputs = dict[str, Tensor]  # scores (B, Q, classes); deltas, bboxes, references (B, Q, 4)


@TASK_UTILS.register_module()
class BoxDeltaL1Cost(BaseMatchCost):
    """L1 distance of a prediction's deltas from those that lead to an annotation."""

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: Any = None
    ) -> Tensor:
        """Return the cost of each pair: (predictions, annotations)."""
        wanted = encode_boxes(pred_instances.references[:, None], gt_instances.bboxes)
        return self.weight * (pred_instances.deltas[:, None] - wanted).abs().sum(-1)


@MODELS.register_module()
class PlainDETRHead(DeformableDETRHead):
    """Match the first queries once with each annotation, the others ``num_repeats`` times.

    Args:
        args: Those of mmdet's head, also by name.
        num_repeats: Queries of the second group that an annotation gets.
    """

    def __init__(self, *args: Any, num_repeats: int = 6, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_repeats = num_repeats

    def forward(self, outputs: list[Outputs], **first_stage: Any) -> tuple[Tensor, Tensor]:
        """Return the logits and the boxes in pixels of all layers."""
        return tuple(torch.stack([o[key] for o in outputs]) for key in ('scores', 'bboxes'))

    def loss(
        self,
        outputs: list[Outputs],
        proposals: Outputs,
        num_one_to_one: int,
        batch_data_samples: SampleList,
    ) -> dict[str, Tensor]:
        """Return the losses of the proposals, and of each layer and group of queries."""
        annotations, repeated, objects = [], [], []
        for sample in batch_data_samples:
            boxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
            annotations.append(InstanceData(bboxes=boxes, labels=labels))
            repeated.append(InstanceData.cat(annotations[-1:] * self.num_repeats))
            # The first logit of a proposal says whether there is an object.
            objects.append(InstanceData(bboxes=boxes, labels=torch.zeros_like(labels)))
        losses = self._losses('enc_', _by_image(proposals), objects)
        for layer, output in enumerate(outputs, 1):
            prefix = '' if layer == len(outputs) else f'd{layer - 1}.'
            found = _by_image(output)
            losses |= self._losses(prefix, [f[:num_one_to_one] for f in found], annotations)
            prefix += 'one_to_many_'
            losses |= self._losses(prefix, [f[num_one_to_one:] for f in found], repeated)
        return losses

    def _losses(
        self, prefix: str, predictions: InstanceList, annotations: InstanceList
    ) -> dict[str, Tensor]:
        labels, matched, wanted = [], [], []
        for found, item in zip(predictions, annotations, strict=True):
            chosen = self.assigner.assign(found, item).gt_inds  # 0: none, else 1 + its number
            matched.append(found[chosen > 0])
            wanted.append(item[chosen[chosen > 0] - 1])
            labels.append(pad(item.labels, (1, 0), value=self.num_classes)[chosen])
        scores = torch.cat([found.scores for found in predictions])
        pairs, targets = InstanceData.cat(matched), InstanceData.cat(wanted)
        deltas = encode_boxes(pairs.references, targets.bboxes)
        number = scores.new_tensor(float(sum(map(len, annotations))))
        average = reduce_mean(number).clamp(min=1).item()
        return {
            f'{prefix}loss_cls': self.loss_cls(scores, torch.cat(labels), avg_factor=average),
            f'{prefix}loss_bbox': self.loss_bbox(pairs.deltas, deltas, avg_factor=average),
            f'{prefix}loss_iou': self.loss_iou(pairs.bboxes, targets.bboxes, avg_factor=average),
        }

    def predict(
        self, outputs: list[Outputs], batch_data_samples: SampleList, rescale: bool = True
    ) -> InstanceList:
        """Return the best predictions of the last layer for each image."""
        metas = [sample.metainfo for sample in batch_data_samples]
        logits, boxes = self(outputs[-1:])
        # mmdet's method expects boxes in units of the image.
        sizes = boxes.new_tensor([meta['img_shape'][1::-1] * 2 for meta in metas])
        boxes = bbox_xyxy_to_cxcywh(boxes / sizes[:, None])
        head = copy.copy(self)
        # Small images have few queries, and mmdet's method takes no more than there are.
        limit = min(self.test_cfg['max_per_img'], logits[0, 0].numel())
        head.test_cfg = {**self.test_cfg, 'max_per_img': limit}
        return head.predict_by_feat(logits, boxes, batch_img_metas=metas, rescale=rescale)


def _by_image(outputs: Outputs) -> InstanceList:
    number = len(outputs['scores'])
    return [InstanceData(**{k: v[i].float() for k, v in outputs.items()}) for i in range(number)]
