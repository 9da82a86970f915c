"""Load official, timm and MindCV weights of PVTv2 under mmdet's names."""

from __future__ import annotations

import re

import torch
from mmdet.models.backbones.pvt import pvt_convert
from torch import Tensor, nn

from swinv2_mm.checkpoint.errors import CheckpointError
from swinv2_mm.checkpoint.load_report import shortened
from swinv2_mm.checkpoint.reading import Source, open_weights
from swinv2_mm.core.numerics import NUMERICS_ENTRY, NUMERICS_NAMES

# Names of timm and of MindCV -> the official ones.
_LISTS = re.compile(r'^(patch_embed|block|norm)_list\.(\d)\.')
_RULES = (
    (re.compile(r'^patch_embed\.'), lambda _: 'patch_embed1.'),
    (re.compile(r'^stages\.(\d)\.blocks\.'), lambda m: f'block{int(m[1]) + 1}.'),
    (re.compile(r'^stages\.(\d)\.norm\.'), lambda m: f'norm{int(m[1]) + 1}.'),
    (re.compile(r'^stages\.(\d)\.downsample\.'), lambda m: f'patch_embed{int(m[1]) + 1}.'),
    (re.compile(r'\.mlp\.dwconv\.(?!dwconv)'), lambda _: '.mlp.dwconv.dwconv.'),
    (_LISTS, lambda m: f'{m[1]}{int(m[2]) + 1}.'),
    (re.compile(r'\.gamma$'), lambda _: '.weight'),
    (re.compile(r'\.beta$'), lambda _: '.bias'),
)


def own_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give weights of a PVTv2 the names of mmdet's backbone.

    Args:
        tensors: In the official layout, timm's, MindCV's, or mmdet's (also as ``backbone.`` of a
            model).
    """
    prefix = 'backbone.'
    inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    tensors = inside or tensors
    if any(name.startswith('layers.') for name in tensors):
        return {k: v for k, v in tensors.items() if k.startswith(('layers.', NUMERICS_ENTRY))}
    official = {}
    for name, value in tensors.items():
        for pattern, replacement in _RULES:
            name = pattern.sub(replacement, name)
        official[name] = value
    # It leaves out the head and joins q with k and v.
    own = dict(pvt_convert(official))
    if any(name.startswith('patch_embed_list.') for name in tensors):
        own[NUMERICS_ENTRY] = torch.tensor(NUMERICS_NAMES.index('mindspore'))
    return own


def load_pvtv2(backbone: nn.Module, source: Source) -> None:
    """Load weights of any layout that ``own_names`` takes, all of them.

    Raises:
        CheckpointError: If the file cannot be read safely, or does not fit.
    """
    weights = open_weights(source)
    try:
        found = own_names(weights.tensors)
    except (KeyError, ValueError, IndexError, RuntimeError):
        found = {}
    wanted = backbone.state_dict()
    # The backbone takes its numerics from the weights.
    lacking = sorted(wanted.keys() - found - {NUMERICS_ENTRY})
    unknown = sorted(found.keys() - wanted - {NUMERICS_ENTRY})
    differing = [k for k in wanted if k in found and wanted[k].shape != found[k].shape]
    if lacking or unknown or differing:
        problems = [
            f'{what} {shortened(names)}'
            for what, names in (
                ('it lacks', lacking), ('it adds', unknown), ('of another shape:', differing)
            )
            if names
        ]  # fmt: skip
        raise CheckpointError(
            f'{weights.origin} does not fit this PVTv2 ({"; ".join(problems)}): is arch right?'
        )
    with torch.no_grad():
        backbone.load_state_dict(found)
