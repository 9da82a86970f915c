"""Describe, compare, convert and bake files of weights of any known layout."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swinv2_mm.core import ARCHITECTURES
from swinv2_mm.core.stage_settings import WindowSize

from .building import LoadedModel, model_of
from .errors import CheckpointError
from .load_report import LoadReport, format_window
from .saving import save_pretrained

# Largest relative difference of outputs that float32 rounding explains.
_BAKED_TOLERANCE = 1e-4
_LISTED_DIFFERENCES = 10


@dataclass(frozen=True)
class Baked:
    """What ``bake`` has written.

    Attributes:
        windows: Windows of all stages, as text.
        difference: Largest difference from the original, relative to the largest output.
        side_px: Side of the image that both were compared on.
    """

    windows: str
    difference: float
    side_px: int


def describe(model: LoadedModel, report: LoadReport) -> dict[str, Any]:
    """Summarise a file as a table of readable names and values."""
    backbone = model.backbone
    stem = backbone.patch_embed.proj
    known = [name for name, arch in ARCHITECTURES.items() if arch == backbone.arch]
    dtypes = {str(p.dtype).removeprefix('torch.') for p in model.parameters()}
    return {
        'layout': report.layout,
        'arch': known[0] if known else 'custom',
        'embed_dim': backbone.arch.embed_dim,
        'depths': list(backbone.arch.depths),
        'num_heads': list(backbone.arch.num_heads),
        'position_bias': backbone.layers[0].blocks[0].attn.position_bias,
        'trained at windows': [format_window(size) for size in report.pretrained_window_sizes],
        'numerics': backbone.numerics,
        'patch': f'{stem.stride[0]} px, {stem.in_channels} channels',
        'output norms': list(backbone.out_indices),
        'classes': None if model.head is None else model.head.out_features,
        'parameters': sum(p.numel() for p in model.parameters()),
        'loaded as': ', '.join(sorted(dtypes)),
    }


def whole(model: LoadedModel) -> nn.Module:
    """Return what to save: the model, or its backbone if it has no head."""
    return model.backbone if model.head is None else model


def compare(
    file: str, other: str, *, tolerance: float, pretrained_window_sizes: WindowSize | None
) -> tuple[list[str], int, int]:
    """Compare the values of two files, whatever their layouts.

    Returns:
        The differences in sentences, the number of common parameters that differ by more than
        ``tolerance``, and the number of common parameters.

    Raises:
        CheckpointError: If one of them cannot be read.
    """
    ours, our_report = model_of(file, pretrained_window_sizes=pretrained_window_sizes)
    theirs, their_report = model_of(other, pretrained_window_sizes=pretrained_window_sizes)
    found = []
    facts = describe(ours, our_report), describe(theirs, their_report)
    for key in facts[0]:
        if key not in ('layout', 'loaded as', 'parameters') and facts[0][key] != facts[1][key]:
            found.append(f'{key}: {facts[0][key]} against {facts[1][key]}')
    left, right = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for here, there, name in ((left, right, other), (right, left, file)):
        if lacking := [key for key in here if key not in there]:
            found.append(f'{name} lacks {len(lacking)} parameters, such as {lacking[0]}')
    common = left.keys() & right.keys()
    differences = {}
    for key in common:
        if left[key].shape != right[key].shape:
            found.append(f'{key}: {tuple(left[key].shape)} against {tuple(right[key].shape)}')
            continue
        difference = (left[key] - right[key]).abs().max().item()
        if difference > tolerance:
            differences[key] = difference
    worst = sorted(differences, key=differences.__getitem__, reverse=True)[:_LISTED_DIFFERENCES]
    found += [f'{key}: differs by up to {differences[key]:.3g}' for key in worst]
    return found, len(differences), len(common)


@torch.inference_mode()
def bake(
    file: str,
    out: str | Path,
    *,
    window_size: WindowSize,
    pretrained_window_sizes: WindowSize | None,
) -> Baked:
    """Write a copy whose bias networks are replaced by their values at one window size.

    Raises:
        CheckpointError: If the file cannot be read, or the copy would compute something else.
    """
    model, _ = model_of(file, pretrained_window_sizes=pretrained_window_sizes)
    backbone = model.backbone
    backbone.set_window_size(window_size)
    fixed = copy.deepcopy(model)
    fixed.backbone.bake_position_bias()
    # Not a multiple of the windows: padded and shifted ones are compared as well.
    stem = backbone.patch_embed.proj
    side = stem.stride[0] * (2 * max(map(max, backbone.window_sizes)) + 1)
    image = torch.randn(1, stem.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    worst = max(map(_relative_difference, backbone(image), fixed.backbone(image)))
    if not worst <= _BAKED_TOLERANCE:
        raise CheckpointError(f'baked outputs would differ by {worst:.3g}; nothing was written')
    save_pretrained(whole(fixed), out)
    windows = ', '.join(map(format_window, backbone.window_sizes))
    return Baked(windows=windows, difference=worst, side_px=side)


def _relative_difference(expected: Tensor, got: Tensor) -> float:
    return ((expected - got).abs().max() / expected.abs().max()).item()
