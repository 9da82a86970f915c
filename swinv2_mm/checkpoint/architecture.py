"""Read the architecture of weights off their names and shapes, and compare it with a model's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields

from torch import Tensor

from swinv2_mm.core import ARCHITECTURES, Architecture, SwinTransformerV2
from swinv2_mm.core.position_bias import PositionBias

from .errors import CheckpointError
from .stem import STEM

_BLOCK = re.compile(r'layers\.(\d+)\.blocks\.(\d+)\.(.+)')
_POSITION_BIAS_PARTS: dict[PositionBias, str] = {
    'log_cpb': 'cpb_mlp.',
    'linear_cpb': 'linear_cpb_mlp.',
    'table': 'relative_position_bias_table',
}


def architecture_of(weights: Mapping[str, Tensor]) -> Architecture | None:
    """Read width, depths and heads off the shapes, or ``None`` where they make no sense."""
    heads: dict[tuple[int, int], int] = {}
    with_extra_norm = []
    for name, value in weights.items():
        if not (match := _BLOCK.fullmatch(name)):
            continue
        if match[3] == 'attn.logit_scale':
            heads[int(match[1]), int(match[2])] = value.numel()
        elif match[3] == 'norm3.weight':
            with_extra_norm.append(int(match[2]) + 1)
    num_stages = 1 + max((stage for stage, _ in heads), default=-1)
    stem = weights.get(STEM)
    if stem is None or stem.ndim != 4 or not heads:
        return None
    if any((stage, 0) not in heads for stage in range(num_stages)):
        return None
    depths = tuple(sum(stage == i for stage, _ in heads) for i in range(num_stages))
    try:
        return Architecture(
            embed_dim=stem.shape[0],
            depths=depths,
            num_heads=tuple(heads[i, 0] for i in range(num_stages)),
            extra_norm_every=min(with_extra_norm, default=None),
        )
    except ValueError:
        return None


def position_bias_of(weights: Mapping[str, Tensor]) -> PositionBias | None:
    """Read the kind of position bias off the names, or ``None`` where none is there."""
    for name in weights:
        for kind, part in _POSITION_BIAS_PARTS.items():
            if f'.attn.{part}' in name:
                return kind
    return None


def check_architecture(weights: Mapping[str, Tensor], *, backbone: SwinTransformerV2) -> None:
    """Compare the weights' architecture and kind of position bias with the model's.

    Raises:
        CheckpointError: If they differ.
    """
    found = architecture_of(weights)
    if found is None:
        # The check of single parameters says what is wrong.
        return
    theirs, ours = [], []
    for field in fields(Architecture):
        values = getattr(found, field.name), getattr(backbone.arch, field.name)
        # One norm in a stage too short for a second one fits more than one interval.
        if values[0] != values[1] and field.name != 'extra_norm_every':
            theirs.append(f'{field.name} {values[0]}')
            ours.append(f'{field.name} {values[1]}')
    if theirs:
        known = next((f"arch='{name}': " for name, a in ARCHITECTURES.items() if a == found), '')
        raise CheckpointError(
            f'the weights have {known}{", ".join(theirs)}; the model has {", ".join(ours)}'
        )
    if (found.extra_norm_every is None) != (backbone.arch.extra_norm_every is None):
        arch = ', '.join(f'{f.name}={getattr(found, f.name)}' for f in fields(Architecture))
        raise CheckpointError(
            'extra norms (block.norm3) are in the '
            f'{"model" if found.extra_norm_every is None else "weights"} alone: give the model '
            f'arch=dict({arch})'
        )
    kind, own_kind = position_bias_of(weights), backbone.layers[0].blocks[0].attn.position_bias
    if kind not in (None, own_kind):
        raise CheckpointError(
            f"the weights have position_bias='{kind}', the model has position_bias='{own_kind}'"
        )
