"""Whether weights, already under our names, are those of a given backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor

from swinv2_mm.core import ARCHITECTURES, Architecture, SwinTransformerV2
from swinv2_mm.core.position_bias import PositionBias
from swinv2_mm.core.window_partition import Size

from .errors import CheckpointError
from .report import shortened
from .stem import STEM

_BLOCK = re.compile(r'layers\.(\d+)\.blocks\.(\d+)\.(.+)')
_POSITION_BIAS_PARTS: dict[PositionBias, str] = {
    'log_cpb': 'cpb_mlp.',
    'linear_cpb': 'linear_cpb_mlp.',
    'table': 'relative_position_bias_table',
}
OUTPUT_NORM = re.compile(r'norm(\d+)\.(?:weight|bias)')


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
    theirs, ours = position_bias_of(weights), backbone.layers[0].blocks[0].attn.position_bias
    if theirs not in (None, ours):
        raise CheckpointError(
            f"the weights have position_bias='{theirs}', the model has position_bias='{ours}'"
        )


def split_output_norms(
    weights: Mapping[str, Tensor], *, backbone: SwinTransformerV2, has_final_norm: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Say which output norms only one of the two sides has, and why that is in order.

    Classification weights have one norm, that of the last stage; a dense model has one for each
    map that it returns. Only whole norms can be in order, and the last stage's is left out only
    by weights that have another one, or by a layout that has none (``has_final_norm``).

    Returns:
        Norm parameters of the weights that the model does not have, and those of the model
        that the weights do not have, each with the reason.
    """
    last = len(backbone.layers) - 1
    stages_in_weights = {int(m[1]) for name in weights if (m := OUTPUT_NORM.fullmatch(name))}
    dropped, missing = {}, {}
    for stage in range(last + 1):
        names = (f'norm{stage}.weight', f'norm{stage}.bias')
        if stage not in backbone.out_indices:
            reason = f'the model does not return stage {stage}'
            dropped |= {name: reason for name in names if name in weights}
        elif stage not in stages_in_weights and (
            stage != last or stages_in_weights or not has_final_norm
        ):
            reason = f'the weights have no output norm for stage {stage}: it keeps its start'
            missing |= {name: reason for name in names}
    return dropped, missing


def check_parameters(
    weights: Mapping[str, Tensor],
    *,
    backbone: SwinTransformerV2,
    trained_windows: tuple[Size, ...],
    unexpected: list[str],
    explained: Mapping[str, str],
) -> dict[str, Tensor]:
    """Check every parameter and return the tensors to copy, in the model's type and place.

    Args:
        weights: Under our names, nothing but parameters.
        backbone: The model.
        trained_windows: Window per stage, on which the size of a learnt table depends.
        unexpected: Names of the file that have no counterpart.
        explained: Parameters that may be missing.

    Raises:
        CheckpointError: If something is missing, left over or has the wrong shape or type, or
            if a value is not finite.
    """
    parameters = dict(backbone.named_parameters())
    unexpected = unexpected + [name for name in weights if name not in parameters]
    missing = [name for name in parameters if name not in weights and name not in explained]
    if unexpected:
        raise CheckpointError(f'the model has no place for {shortened(unexpected)}')
    if missing:
        raise CheckpointError(f'the weights lack {shortened(missing)}')
    ready = {}
    for name, value in weights.items():
        target = parameters[name]
        shape = target.shape
        if name.endswith('.relative_position_bias_table'):
            height, width = trained_windows[int(name.split('.')[1])]
            shape = torch.Size(((2 * height - 1) * (2 * width - 1), shape[1]))
        if value.shape != shape:
            raise CheckpointError(
                f'{name} has the shape {tuple(value.shape)} in the weights, {tuple(shape)} in '
                'the model'
            )
        ready[name] = ready_value(name, value, target=target)
    return ready


def ready_value(name: str, value: Tensor, *, target: Tensor) -> Tensor:
    """Return a value in the type and place of the parameter that it is for.

    Raises:
        CheckpointError: If it is not of ordinary, finite numbers.
    """
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        raise CheckpointError(
            f'{name} is a tensor of type {value.dtype} ({value.layout}, {value.device}), '
            'not of ordinary floating-point numbers'
        )
    ready = value.detach().to(device=target.device, dtype=target.dtype)
    if not ready.isfinite().all():
        raise CheckpointError(f'{name} holds NaN or infinite values')
    return ready
