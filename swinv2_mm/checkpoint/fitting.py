"""Validate weights, under our names, against a backbone: names, shapes, windows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.numerics import NUMERICS_ENTRY, NumericsName, numerics_of
from swinv2_mm.core.window_partition import Size

from .architecture import check_architecture
from .errors import CheckpointError
from .layout import Layout
from .layouts import WINDOWS_BUFFER
from .load_report import shortened
from .pretrained_windows import find_pretrained_window_sizes
from .stem import STEM, fit_stem

# Buffers that follow from the window; ours are not part of the weights.
_DERIVED = re.compile(
    r'layers\.\d+\.blocks\.\d+\.(?:attn_mask|attn\.(?:'
    'relative_coords_table|relative_position_index|k_bias))'
)
OUTPUT_NORM = re.compile(r'norm(\d+)\.(?:weight|bias)')


@dataclass
class Fit:
    """The result of fitting weights to a backbone, by our names.

    Attributes:
        ready: Tensors to copy, in the type and place of the model's parameters.
        dropped: Names that are not used, each with the reason.
        missing: Parameters of the model that keep their values, each with the reason.
        adapted: Parameters whose values were changed to fit, each with what was done.
        pretrained_window_sizes: Window per stage, in tokens, that the position bias was trained at.
        numerics: Numerics that the weights were trained with.
    """

    ready: dict[str, Tensor]
    dropped: dict[str, str]
    missing: dict[str, str]
    adapted: dict[str, str]
    pretrained_window_sizes: tuple[Size, ...]
    numerics: NumericsName


def fit_backbone(
    weights: Mapping[str, Tensor],
    *,
    backbone: SwinTransformerV2,
    layout: Layout,
    declared: Any,
    unexpected: list[str],
) -> Fit:
    """Check weights against a backbone and prepare what is to be copied; nothing changes yet.

    Args:
        weights: Tensors under our names, derived buffers included.
        backbone: The model.
        layout: Layout that the weights came in.
        declared: See ``Weights.declared_window_sizes``.
        unexpected: Names of the file that have no counterpart.

    Raises:
        CheckpointError: If the weights do not fit, or do not tell their pretrained windows.
    """
    own = dict(weights)
    check_architecture(own, backbone=backbone)
    windows = _pretrained_window_sizes(own, backbone=backbone, layout=layout, declared=declared)
    dropped, missing = split_output_norms(
        own, backbone=backbone, has_final_norm=layout.has_final_norm
    )
    derived = {name: 'follows from the window' for name in own if _DERIVED.fullmatch(name)}
    dropped = derived | dropped
    for name in dropped:
        del own[name]
    own.pop(WINDOWS_BUFFER, None)
    numerics = _numerics(own.pop(NUMERICS_ENTRY, None), layout=layout)
    how = fit_stem(own, target=backbone.patch_embed.proj.weight)
    ready = fit_parameters(
        own,
        backbone=backbone,
        pretrained_window_sizes=windows,
        unexpected=unexpected,
        explained=missing,
    )
    return Fit(ready, dropped, missing, {STEM: how} if how else {}, windows, numerics)


def _numerics(entry: Tensor | None, *, layout: Layout) -> NumericsName:
    if entry is None:
        return layout.numerics
    try:
        return numerics_of(entry)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _pretrained_window_sizes(
    own: Mapping[str, Tensor], *, backbone: SwinTransformerV2, layout: Layout, declared: Any
) -> tuple[Size, ...]:
    """Decide which windows the weights were trained at."""
    position_bias = backbone.layers[0].blocks[0].attn.position_bias
    given = (
        backbone.get_pretrained_window_sizes() if backbone.pretrained_window_sizes_given else None
    )
    found = find_pretrained_window_sizes(
        own, num_stages=len(backbone.layers), position_bias=position_bias, declared=declared
    )
    if found is None:
        if given is not None:
            return given
        raise CheckpointError(
            f'{layout.name} weights do not say which windows they were trained at: give the '
            'model pretrained_window_sizes, such as (12, 12, 12, 6)'
        )
    if given not in (None, found):
        raise CheckpointError(
            f'the position bias was trained at windows {found}, pretrained_window_sizes of the '
            f'model says {given}; leave the setting out'
        )
    return found


def split_output_norms(
    weights: Mapping[str, Tensor], *, backbone: SwinTransformerV2, has_final_norm: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the output norms that only one of the two sides has, with the reason.

    Classification weights have one norm, that of the last stage; a dense model has one for each
    map that it returns. Only whole norms can be in order, and the last stage's is left out only
    by weights that have another one, or by a layout that has none (``has_final_norm``).

    Returns:
        Norm parameters of the weights that the model does not have, and those of the model
        that the weights do not have, each with the reason.
    """
    last = len(backbone.layers) - 1
    stages_in_weights = {int(m[1]) for name in weights if (m := OUTPUT_NORM.fullmatch(name))}
    dropped: dict[str, str] = {}
    missing: dict[str, str] = {}
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


def misfits(weights: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> list[str]:
    """Compare names and shapes of weights with those of a model: a sentence per kind of misfit.

    Args:
        weights: Tensors under the model's names.
        wanted: Shape of everything that the model needs.
    """
    found = []
    if lacking := [name for name in wanted if name not in weights]:
        found.append(f'the weights lack {shortened(lacking)}')
    if unexpected := [name for name in weights if name not in wanted]:
        found.append(f'the model has no place for {shortened(unexpected)}')
    shapes = {name: getattr(value, 'shape', ()) for name, value in weights.items()}
    differing = [name for name, shape in wanted.items() if shapes.get(name, shape) != shape]
    if differing:
        first, more = differing[0], len(differing) - 1
        found.append(
            f'{first} has the shape {tuple(shapes[first])} in the weights, '
            f'{tuple(wanted[first])} in the model' + (f' (and {more} more differ)' if more else '')
        )
    return found


def fit_parameters(
    weights: Mapping[str, Tensor],
    *,
    backbone: SwinTransformerV2,
    pretrained_window_sizes: tuple[Size, ...],
    unexpected: list[str],
    explained: Mapping[str, str],
) -> dict[str, Tensor]:
    """Check every parameter and return the tensors to copy, in the model's type and place.

    Args:
        weights: Parameters under our names, and nothing else.
        backbone: The model.
        pretrained_window_sizes: Window per stage, on which the size of a learnt table depends.
        unexpected: Names of the file that have no counterpart.
        explained: Parameters that may be missing.

    Raises:
        CheckpointError: If something is missing, left over or has the wrong shape or type, or
            if a value is not finite.
    """
    parameters = dict(backbone.named_parameters())
    wanted = {name: p.shape for name, p in parameters.items() if name not in explained}
    for name, shape in wanted.items():
        if name.endswith('.relative_position_bias_table'):
            height, width = pretrained_window_sizes[int(name.split('.')[1])]
            wanted[name] = torch.Size(((2 * height - 1) * (2 * width - 1), shape[1]))
    problems = misfits({**dict.fromkeys(unexpected, torch.empty(0)), **weights}, wanted)
    if problems:
        raise CheckpointError('; '.join(problems))
    return {
        name: ready_value(name, value, target=parameters[name]) for name, value in weights.items()
    }


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
