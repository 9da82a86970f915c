"""A decoder whose queries attend to the whole map, with a bias from boxes to pixels (BoxRPB).

Shape letters: ``B`` images, ``Q`` queries, ``H W`` cells of the map, ``C`` channels.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from mmcv.cnn.bricks.transformer import BaseTransformerLayer
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from .boxes import STRIDE_PX, decode_boxes


class BoxBias(nn.Module):
    """Bias of a box's attention to pixels: the sum of two small networks, one for each axis.

    One reads a pixel's horizontal offsets from the left and right edge, one its vertical offsets
    from the top and bottom edge.

    Args:
        num_heads: Heads of the attention.
        hidden_channels: Width of both networks.
        offsets: In pixels (``linear``), or a logarithm of them.
    """

    def __init__(
        self, *, num_heads: int, hidden_channels: int, offsets: Literal['linear', 'log'] = 'linear'
    ) -> None:
        super().__init__()
        self.offsets = offsets
        # Parameters under this name do not decay (swinv2_mm/engine/parameter_rules.py).
        self.cpb_mlp = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2, hidden_channels),
                nn.ReLU(),
                nn.Linear(hidden_channels, num_heads, bias=False),
            )
            for _ in range(2)
        )

    def forward(self, boxes: Tensor, map_size: tuple[int, int]) -> Tensor:
        """Return float32 biases, also under autocast: (B, Q, 4) -> (B, heads, Q, H * W)."""
        axes = []
        for axis, mlp in enumerate(self.cpb_mlp):  # x, then y
            edges = boxes[:, :, None, axis::2]
            centres = torch.arange(map_size[1 - axis], device=boxes.device) + 0.5
            offsets = edges - centres[:, None] * STRIDE_PX
            if self.offsets == 'log':
                offsets = offsets.sign() * (offsets.abs() + 1).log2() / 3  # log2(8)
            with torch.autocast(boxes.device.type, enabled=False):
                axes.append(mlp(offsets))
        columns, rows = axes
        bias = rows[:, :, :, None] + columns[:, :, None]
        return bias.flatten(2, 3).permute(0, 3, 1, 2)


class PlainDecoder(nn.Module):
    """Layers with norms first that refine queries and their boxes in turn.

    Args:
        num_layers: Number of layers.
        layer_cfg: Config of mmcv's ``BaseTransformerLayer``.
        bias_cfg: Options of ``BoxBias``.
    """

    def __init__(self, *, num_layers: int, layer_cfg: dict, bias_cfg: dict) -> None:
        super().__init__()
        layers = [BaseTransformerLayer(batch_first=True, **layer_cfg) for _ in range(num_layers)]
        self.layers = nn.ModuleList(layers)
        self.embed_dims = layers[0].embed_dims
        self.biases = nn.ModuleList(BoxBias(**bias_cfg) for _ in layers)
        self.norm = nn.LayerNorm(self.embed_dims)

    def init_weights(self) -> None:
        """Initialize as the official code does, in the manner of Swin."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in self.layers:
            trunc_normal_(layer.attentions[1].attn.in_proj_weight, std=0.02)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        memory: Tensor,
        memory_pos: Tensor,
        *,
        boxes: Tensor,
        limits: Tensor,
        padding: Tensor,
        self_attn_mask: Tensor | None,
        branches: Iterable[tuple[nn.Module, nn.Module]],
    ) -> list[dict[str, Tensor]]:
        """Return each layer's predictions: scores (logits), deltas, boxes, and the references.

        A layer's boxes are constants for the layers after it, but the next layer's loss
        trains them too ("look forward twice", DINO, arXiv 2203.03605).

        Args:
            query: Content of the queries, (B, Q, C).
            query_pos: Their position, which is added to them, of the same shape.
            memory: The map, (B, H * W, C).
            memory_pos: Its position, which is added to the keys, of the same shape.
            boxes: References of the first layer, (B, Q, 4) in pixels.
            limits: To which boxes are clipped, (B, 1, 4).
            padding: Cells that are outside of an image, (B, H, W).
            self_attn_mask: (Q, Q), true where queries do not attend to each other, or ``None``.
            branches: A classifier and a regressor of deltas for each layer; more are not used.
        """
        outputs = []
        layers = zip(self.layers, self.biases, branches, strict=False)
        for layer, box_bias, (classify, regress) in layers:
            bias = box_bias(boxes.detach(), padding.shape[1:])
            bias = bias.masked_fill(padding.flatten(1)[:, None, None], -torch.inf)
            masks = [self_attn_mask, bias.flatten(0, 1)]
            query = layer(query, memory, memory, query_pos, memory_pos, masks)
            state = self.norm(query)
            deltas = regress(state)
            placed = dict(bboxes=decode_boxes(boxes, deltas, limits), references=boxes)
            outputs.append(dict(scores=classify(state), deltas=deltas, **placed))
            boxes = decode_boxes(boxes.detach(), deltas, limits)
        return outputs
