"""The detector: proposals from one map, and a decoder that attends to all of it.

Shape letters: ``B`` images, ``C`` channels, ``H W`` cells of the map.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers.transformer import coordinate_to_encoding
from mmdet.models.necks import ChannelMapper
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.convnext import LayerNorm2d

from swinv2_mm.errors import UserError

from .boxes import STRIDE_PX, decode_boxes
from .decoder import PlainDecoder
from .head import Outputs

DOUBLINGS = (-1, 0, 1, 2)  # of the map's stride: scales at which proposals are made from it
PROPOSAL_PX = 100  # side of a proposal at the map's own stride
BORDER = 0.01  # of an image's sides: centres and sides of proposals keep as much from 0 and 1


@MODELS.register_module()
class UpsampledMap(ChannelMapper):
    """Double the resolution of a backbone's only map, then give it the decoder's width.

    Args:
        in_channels: Of that map, in a list.
        kwargs: Those of mmdet's ``ChannelMapper``.
    """

    def __init__(self, in_channels: Sequence[int], **kwargs: Any) -> None:
        (channels,) = in_channels
        super().__init__([channels // 2], **kwargs)
        self.upsample = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """(B, in_channels, H, W) -> (B, C, 2H, 2W), both in a sequence of one."""
        return super().forward([self.upsample(*inputs)])


@MODELS.register_module()
class PlainDETR(DeformableDETR):
    """Plain DETR (arXiv 2308.01904) with boxes in pixels.

    Args:
        args: Those of mmdet's ``DeformableDETR``, also by name, without ``encoder`` and
            ``positional_encoding``. ``num_queries`` are matched one to one.
        num_one_to_many: Further queries in training.
    """

    def __init__(self, *args: Any, num_one_to_many: int = 1500, **kwargs: Any) -> None:
        self.num_one_to_many = num_one_to_many
        super().__init__(*args, with_box_refine=True, as_two_stage=True, **kwargs)

    def _init_layers(self) -> None:
        self.decoder = PlainDecoder(**self.decoder)
        channels = self.embed_dims = self.decoder.embed_dims
        self.query_embedding = nn.Embedding(self.num_queries + self.num_one_to_many, channels)
        self.level_embed = nn.Parameter(torch.randn(channels))
        self.proposal_layers = nn.ModuleList(_scale_layer(channels, n) for n in DOUBLINGS)
        self.memory_trans_fc = nn.Linear(channels, channels)
        self.memory_trans_norm = nn.LayerNorm(channels)
        self.pos_trans_fc = nn.Linear(2 * channels, 2 * channels)
        self.pos_trans_norm = nn.LayerNorm(2 * channels)

    def init_weights(self) -> None:
        """Initialize what stands between neck and decoder by Xavier, as the official code does."""
        super(DeformableDETR, self).init_weights()
        for module in (self.proposal_layers, self.memory_trans_fc, self.pos_trans_fc):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward_transformer(
        self, img_feats: Sequence[Tensor], batch_data_samples: OptSampleList = None
    ) -> dict[str, Any]:
        """Return the arguments of the head: each layer's outputs, in training also proposals."""
        (feature_map,) = img_feats
        if min(feature_map.shape[-2:]) < 2 ** max(DOUBLINGS):
            raise UserError(
                'Plain DETR needs images of more than 32 px a side after resizing and padding, '
                f'got {feature_map.shape[-2] * STRIDE_PX} x {feature_map.shape[-1] * STRIDE_PX} px'
            )
        padding = _padding(feature_map, batch_data_samples)
        sizes = torch.stack([(~padding).any(1).sum(1), (~padding).any(2).sum(1)], dim=-1)
        limits = sizes[:, None].repeat(1, 1, 2) * STRIDE_PX  # of boxes, (B, 1, 4)
        proposals = self._propose(feature_map, padding, limits)
        objectness = proposals['scores'][..., 0]
        wanted = self.num_queries + self.num_one_to_many * self.training
        best = objectness.topk(min(wanted, objectness.shape[1]), dim=1).indices
        boxes = proposals['bboxes'].detach().take_along_dim(best[..., None], dim=1)
        # mmdet's encoding puts y before x, the official one only that of cells.
        position = bbox_xyxy_to_cxcywh(boxes)[..., [1, 0, 2, 3]]
        encoding = coordinate_to_encoding(position, self.embed_dims // 2)
        query_pos = self.pos_trans_norm(self.pos_trans_fc(encoding))[..., : self.embed_dims]
        is_one_to_one = torch.arange(best.shape[1], device=best.device) < self.num_queries
        cells = coordinate_to_encoding(_cell_centres(feature_map)[None], self.embed_dims // 2)
        outputs = self.decoder(
            self.query_embedding.weight[: best.shape[1]].repeat(len(boxes), 1, 1),
            query_pos,
            feature_map.flatten(2).mT,
            (cells + self.level_embed).expand(len(boxes), -1, -1),
            boxes=boxes,
            limits=limits,
            padding=padding,
            # The groups do not see each other.
            self_attn_mask=is_one_to_one[:, None] != is_one_to_one if self.training else None,
            branches=zip(self.bbox_head.cls_branches, self.bbox_head.reg_branches, strict=True),
        )
        first_stage = dict(proposals=proposals, num_one_to_one=self.num_queries)
        return dict(outputs=outputs, **first_stage) if self.training else dict(outputs=outputs)

    def _propose(self, feature_map: Tensor, padding: Tensor, limits: Tensor) -> Outputs:
        """Score and place one box for each cell at each scale."""
        tokens, cells, masks = [], [], []
        for doublings, layer in zip(DOUBLINGS, self.proposal_layers, strict=True):
            scaled = layer(feature_map)
            centres = _cell_centres(scaled) * STRIDE_PX * 2**doublings
            sides = torch.full_like(centres, PROPOSAL_PX * 2**doublings)
            tokens.append(scaled.flatten(2).mT)
            cells.append(torch.cat([centres, sides], dim=-1))
            mask = functional.interpolate(padding[:, None].float(), size=scaled.shape[-2:])
            masks.append(mask.flatten(1) > 0)
        references = torch.cat(cells)
        usable = (references > BORDER * limits) & (references < (1 - BORDER) * limits)
        usable = (usable.all(-1) & ~torch.cat(masks, dim=1))[..., None]
        # Others are all the same box at a corner, without features.
        corner = max(feature_map.shape[-2:]) * STRIDE_PX
        references = bbox_cxcywh_to_xyxy(torch.where(usable, references, corner))
        memory = torch.where(usable, torch.cat(tokens, dim=1), 0)
        memory = self.memory_trans_norm(self.memory_trans_fc(memory))
        scores = self.bbox_head.cls_branches[-1](memory)
        deltas = self.bbox_head.reg_branches[-1](memory)
        boxes = decode_boxes(references, deltas, limits)
        return dict(scores=scores, deltas=deltas, bboxes=boxes, references=references)


def _scale_layer(channels: int, doublings: int) -> nn.Sequential:
    """Layer that doubles the stride, or halves it, several times: convolutions of 2 x 2."""
    step = nn.Conv2d if doublings > 0 else nn.ConvTranspose2d
    layers: list[nn.Module] = []
    for _ in range(abs(doublings)):
        layers += [step(channels, channels, 2, stride=2), LayerNorm2d(channels), nn.GELU()]
    return nn.Sequential(*layers[:-2])  # the last convolution stands alone


def _cell_centres(feature_map: Tensor) -> Tensor:
    """Centres (x, y) of a map's cells in cells, row by row: (B, C, H, W) -> (H * W, 2)."""
    y, x = (torch.arange(side, device=feature_map.device) + 0.5 for side in feature_map.shape[2:])
    return torch.cartesian_prod(y, x).flip(-1)


def _padding(feature_map: Tensor, samples: OptSampleList) -> Tensor:
    """Tell which cells are outside of their image: (B, C, H, W) -> (B, H, W)."""
    if not samples:
        return torch.zeros_like(feature_map[:, 0], dtype=torch.bool)
    mask = feature_map.new_ones(len(samples), 1, *samples[0].batch_input_shape)
    for image, sample in zip(mask, samples, strict=True):
        image[:, : sample.img_shape[0], : sample.img_shape[1]] = 0
    return functional.interpolate(mask, size=feature_map.shape[-2:])[:, 0] > 0
