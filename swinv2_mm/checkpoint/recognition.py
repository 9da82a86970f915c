"""Recognise the layout of a state dict and the prefix of the backbone in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import CheckpointError
from .layout import Layout
from .layouts import LAYOUTS, OFFICIAL, OWN, TIMM, TIMM_FEATURES, WINDOWS_BUFFER
from .load_report import shortened
from .mindspore_layout import MINDSPORE, OPTIMIZER_STATE

# The bias network of timm's swinv2_cr models.
_OF_CR = '.attn.meta_mlp.'


def recognise(names: Iterable[str]) -> tuple[Layout, str]:
    """Return the layout and the prefix of the backbone, such as ``backbone.`` or nothing.

    Raises:
        CheckpointError: If the names are those of no layout, of another model, or of several
            backbones.
    """
    names = set(names)
    if any(_OF_CR in name for name in names):
        raise CheckpointError(
            'the weights are those of a swinv2_cr model of timm, another architecture (a port from '
            'before the official code): take the weights of a swinv2 model without _cr'
        )
    found = [
        (prefix, stem)
        for stem in dict.fromkeys(layout.stem for layout in LAYOUTS.values())
        for name in names
        if (prefix := _prefix(name, stem=stem)) is not None
    ]
    if not found:
        example = shortened(sorted(names)) if names else 'no tensors at all'
        raise CheckpointError(f'not the weights of a SwinV2 in any known layout: {example}')
    # Other parts of a model may begin with a convolution of the same name.
    with_blocks = [
        (prefix, stem)
        for prefix, stem in found
        if any(name.startswith(prefix) and name.endswith('.logit_scale') for name in names)
        and prefix not in OPTIMIZER_STATE
    ]
    if not with_blocks:
        raise CheckpointError(
            'not the weights of a SwinV2: they hold no logit_scale (those of the first Swin '
            'Transformer cannot be used)'
        )
    if len(with_blocks) > 1:
        prefixes = shortened(sorted(repr(prefix) for prefix, _ in with_blocks))
        raise CheckpointError(
            f'the weights hold several backbones, under {prefixes}; keep only one of them'
        )
    [(prefix, stem)] = with_blocks
    if stem != OWN.stem:
        return next(layout for layout in LAYOUTS.values() if layout.stem == stem), prefix
    # These share their names but for a few.
    if f'{prefix}layers_0.blocks.0.attn.logit_scale' in names:
        return TIMM_FEATURES, prefix
    if prefix + WINDOWS_BUFFER in names:
        return OWN, prefix
    if f'{prefix}patch_embed.norm.gamma' in names:
        return MINDSPORE, prefix
    closes_a_stage = f'{prefix}layers.0.downsample.reduction.weight' in names
    opens_a_stage = any(
        re.fullmatch(re.escape(prefix) + r'layers\.[1-9]\d*\.downsample\.reduction\.weight', name)
        for name in names
    )
    return (TIMM if opens_a_stage and not closes_a_stage else OFFICIAL), prefix


def _prefix(name: str, *, stem: str) -> str | None:
    prefix = name.removesuffix(stem)
    if prefix == name or (prefix and not prefix.endswith('.')):
        return None
    return prefix
