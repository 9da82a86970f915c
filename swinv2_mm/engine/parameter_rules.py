"""Define weight decay and layer-wise learning rates of parameters, for all tasks."""

from __future__ import annotations

import torch
from torch import nn

from swinv2_mm.checkpoint.loading import find_backbones

# Official rule; 1-D parameters (norms, biases) are exempt as well.
NO_DECAY_NAMES = (
    'logit_scale',
    'cpb_mlp',
    'relative_position_bias_table',
    'mask_token',
    # Embeddings of the queries and levels of Mask2Former (its published recipe). The dot excludes
    # DINO's, whose recipe lets them decay.
    'query_embed.',
    'query_feat.',
    'level_embed.',
)


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter (official SwinV2 training code)."""
    return parameter.ndim > 1 and not any(part in name for part in NO_DECAY_NAMES)


def decayed_against_rule(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """List the parameters of SwinV2 backbones that decay although they should not.

    Args:
        model: Unwrapped.
        optimizer: Optimizer of the model.
    """
    decaying = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get('weight_decay')
        for parameter in group['params']
    }
    backbones = find_backbones(model)
    own = {id(parameter) for backbone in backbones for parameter in backbone.parameters()}
    return [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) in decaying & own and not is_decayed(name, parameter)
    ]


def backbone_depth(name: str, depths: tuple[int, ...]) -> int:
    """Depth of a parameter of the backbone, for layer-wise learning rate decay.

    0 is the stem, 1 + i the i-th block counted through all stages; the merging after a stage
    goes with that stage's last block; output norms are ``sum(depths) + 1``, as a head is.

    This is BEiT's convention as the official fine-tuning code of SimMIM applies it to Swin, and
    mmpretrain's for Swin V1. That code knows no ``norm0`` to ``norm2``: they are new in a dense
    task, as its head is, and learn as fast.

    Args:
        name: Name inside the backbone, such as ``layers.0.blocks.1.mlp.fc1.weight``.
        depths: Blocks per stage.
    """
    parts = name.split('.')
    if parts[0] in ('patch_embed', 'mask_token'):
        return 0
    if parts[0] != 'layers':
        return sum(depths) + 1
    stage = int(parts[1])
    if parts[2] == 'downsample':
        return sum(depths[: stage + 1])
    return 1 + sum(depths[:stage]) + int(parts[3])
