"""Add a global self-attention layer on the last feature map, before the neck (HTC++)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from swinv2_mm.core.attention import Backend, WindowAttention, resolve_backend
from swinv2_mm.core.blocks import SwinBlock, draw_layers
from swinv2_mm.core.window_partition import Size, WindowGrid, window_grid

# Logits held at once: 256 MB in float32, about five times that with the bias and the gradients.
# All 48 heads of SwinV2-L on the 48 x 48 tokens of a 1536 px image would be four times as many.
_MAX_LOGITS = 2**26


def by_head_groups(
    qkv: Tensor, grid: WindowGrid, logit_scale: Tensor, bias: Tensor, *, backend: Backend
) -> Tensor:
    """Run an attention backend on as many heads at a time as memory should hold.

    Heads do not meet, so the result is the backend's own. With more than one group, each is
    recomputed in the backward pass.

    Args:
        qkv: See ``swinv2_mm.core.attention.eager``, as for ``grid``, ``logit_scale``, ``bias``.
        backend: What computes a group.
    """
    num_heads = logit_scale.numel()
    num_tokens = grid.padded_size[0] * grid.padded_size[1]
    logits_per_head = qkv.shape[0] * num_tokens * grid.window[0] * grid.window[1]
    group_size = max(1, _MAX_LOGITS // logits_per_head)
    if group_size >= num_heads:
        return backend(qkv, grid, logit_scale, bias)
    heads = qkv.unflatten(-1, (3, num_heads, -1))
    outs = []
    for start in range(0, num_heads, group_size):
        group = slice(start, start + group_size)
        inputs = (heads[..., group, :].flatten(-3), grid, logit_scale[group], bias[group])
        if torch.is_grad_enabled():
            outs.append(checkpoint(backend, *inputs, use_reentrant=False))
        else:
            outs.append(backend(*inputs))
    return torch.cat(outs, dim=-1)


@MODELS.register_module()
class GlobalAttentionNeck(BaseModule):
    """A neck that first passes the last map through a SwinV2 block whose window is the map.

    HTC++ of the Swin papers (arXiv 2103.14030, 2111.09883) adds one global self-attention layer to
    the output of the last stage. It starts as the identity, as every SwinV2 block does, and learns
    at the rate of the heads, not of the backbone. A change of the backbone's windows
    (``--window-size``) leaves it alone.

    Args:
        in_channels: Channels of each map; they are passed on to ``neck``.
        neck: Config of the neck that takes the maps, without ``in_channels``.
        reference_window: Side or (height, width) of the map, in tokens, that the log-spaced
            coordinates of the position bias refer to: 48 for training at 1536 px. It is part of
            the weights: loaded ones bring their own.
        head_dim: Channels of an attention head.
        drop_path_rate: Probability of dropping a branch of the block, in [0, 1).
        with_cp: Recompute the block in the backward pass to save memory.
        attention: Backend, as for the backbone.

    Raises:
        ValueError: If a value does not fit.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        neck: dict,
        reference_window: int | Sequence[int] = 48,
        head_dim: int = 32,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        attention: str = 'auto',
    ) -> None:
        super().__init__()
        dim = in_channels[-1]
        if head_dim < 1 or dim % head_dim:
            raise ValueError(
                f'head_dim {head_dim} of GlobalAttentionNeck does not divide the {dim} channels '
                'of the last map'
            )
        if 'in_channels' in neck:
            raise ValueError(
                'in_channels goes to GlobalAttentionNeck, which passes it on; take it out of its '
                'neck=dict(...)'
            )
        reference = _pair(reference_window)
        attn = WindowAttention(
            dim,
            num_heads=dim // head_dim,
            position_bias='log_cpb',
            pretrained_window_size=reference,
            backend=partial(by_head_groups, backend=resolve_backend(attention)),
        )
        self.with_cp = with_cp
        self.block = SwinBlock(
            attn, dim=dim, shifted=False, drop_path_rate=drop_path_rate, with_extra_norm=False
        )
        # A bias network is meaningless without the window it was trained at.
        self.register_buffer('reference_window', torch.tensor(reference))
        self.neck = MODELS.build({**neck, 'in_channels': list(in_channels)})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the block's weights as those of the backbone's blocks: it starts as the identity."""
        draw_layers(self.block)
        self.block.reset_parameters()

    def init_weights(self) -> None:
        """Initialise the block and the neck: the hook that a Runner calls."""
        self.reset_parameters()
        super().init_weights()

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Attend over the last map and run the neck on all.

        Shapes:
            maps (B, C_i, H_i, W_i) -> what the neck returns
        """
        x = inputs[-1].permute(0, 2, 3, 1)
        size = (x.shape[1], x.shape[2])
        grid = window_grid(size, window=size, shifted=False, tiling='fixed')
        if self.with_cp and torch.is_grad_enabled():
            x = checkpoint(self.block, x, grid, use_reentrant=False)
        else:
            x = self.block(x, grid)
        return self.neck((*inputs[:-1], x.permute(0, 3, 1, 2).contiguous()))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:  # noqa: ANN002
        reference = state_dict.get(f'{prefix}reference_window')
        if reference is not None and reference.shape == self.reference_window.shape:
            self.block.attn.set_pretrained_window_size(tuple(reference.tolist()))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _pair(value: int | Sequence[int]) -> Size:
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
        raise ValueError(
            'reference_window must be a positive whole number of tokens or a (height, width) pair '
            f'of them, got {value}'
        )
    return pair
