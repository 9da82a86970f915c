"""Save the weights of a backbone to a file in a chosen layout."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from swinv2_mm.atomic_write import atomic_path, atomic_write
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.numerics import NUMERICS_ENTRY
from swinv2_mm.core.position_bias import relative_coords

from .heads import find_head
from .huggingface_config import hugging_face_config
from .layout import Layout
from .layouts import (
    HUGGINGFACE,
    MMPRETRAIN,
    OFFICIAL,
    OWN,
    TIMM,
    TORCHVISION,
    WINDOWS_BUFFER,
)
from .loading import find_backbone
from .rules import translate
from .timm_config import timm_config

_WRITABLE = {
    layout.name: layout for layout in (OWN, OFFICIAL, TIMM, MMPRETRAIN, HUGGINGFACE, TORCHVISION)
}
# These say what windows they were trained at by the coordinates that they save.
_WITH_COORDINATES = (OFFICIAL, MMPRETRAIN, TORCHVISION)
# Where classifiers have their head, and what they put before the names of the backbone.
_HEADS = {'timm': 'head.fc', 'mmpretrain': 'head.fc', 'huggingface': 'classifier'}
# Functions that describe the model for the ``config.json`` of two libraries.
_CONFIGS = {'huggingface': hugging_face_config, 'timm': timm_config}
_PREFIXES = {'mmpretrain': 'backbone.', 'huggingface': 'swinv2.'}


def save_pretrained(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    layout: Literal['own', 'official', 'timm', 'mmpretrain', 'huggingface', 'torchvision'] = 'own',
    image_size_px: int | None = None,
    classes: Sequence[str] = (),
) -> dict[str, str]:
    """Write the backbone of a model so that ``load_pretrained``, or a peer, can read it.

    A classifier's linear head goes with it. The write is atomic. Only
    ``own`` holds everything; most of the others are those of classification models, which have
    no norms on the first outputs.

    Args:
        model: A ``SwinTransformerV2``, or a module that holds exactly one.
        path: Ends in ``.safetensors``, or in ``.pth``, ``.pt`` or ``.bin``. With
            ``huggingface`` and ``timm``, a path without a suffix is a folder that gets
            ``model.safetensors`` and ``config.json``, as ``from_pretrained`` and ``local-dir:``
            want it.
        layout: Names and arrangement of the weights.
        image_size_px: Side of the images that the model is for, at its present windows; it goes
            into ``config.json`` and the metadata of a ``.safetensors`` file.
        classes: Names of the head's classes, for the same places.

    Returns:
        What the layout has no place for, each with the reason.

    Raises:
        UserError: If the file cannot be written.
        ValueError: If the layout or the suffix is unknown, if the layout cannot express the
            model, or if ``model`` does not hold exactly one backbone.
    """
    backbone = find_backbone(model)
    head = None if model is backbone else find_head(model)
    if layout not in _WRITABLE:
        raise ValueError(f"unknown layout '{layout}' (known: {', '.join(_WRITABLE)})")
    path = Path(path)
    weights, left_out = to_layout(backbone, layout=_WRITABLE[layout])
    if head is not None:
        weights = _with_head(weights, head[1], layout=_WRITABLE[layout])
    num_classes = None if head is None else head[1].out_features
    if len(classes) != num_classes:
        classes = ()
    if layout in _CONFIGS and not path.suffix:
        config = _CONFIGS[layout](
            backbone, num_classes=num_classes, image_size_px=image_size_px, classes=classes
        )
        atomic_write(path / 'config.json', json.dumps(config, indent=2) + '\n')
        path /= 'model.safetensors'
    if path.suffix == '.safetensors':
        # Other programs read the format; the windows are for our own reader.
        notes = {'format': 'pt', WINDOWS_BUFFER: json.dumps(backbone.get_pretrained_window_sizes())}
        notes['window_sizes'] = json.dumps(backbone.window_sizes)
        if image_size_px is not None:
            notes['image_size'] = json.dumps(image_size_px)
        if classes:
            notes['classes'] = json.dumps(list(classes))
        with atomic_path(path) as part:
            save_file(weights, part, metadata=notes)
    elif path.suffix in ('.pth', '.pt', '.bin'):
        # Python's errors name the file and the reason; those of torch's own writer do not.
        with atomic_path(path) as part, part.open('wb') as file:
            torch.save(weights, file)
    else:
        raise ValueError(f'{path} must end in .safetensors, .pth, .pt or .bin')
    return left_out


def _with_head(weights: dict[str, Tensor], head: nn.Linear, *, layout: Layout) -> dict[str, Tensor]:
    """Add a head under the name that it has in the classifiers of a layout."""
    prefix = _PREFIXES.get(layout.name, '')
    name = _HEADS.get(layout.name, 'head')
    values = {f'{name}.{k}': v.detach().cpu().clone() for k, v in head.state_dict().items()}
    return {prefix + key: value for key, value in weights.items()} | values


def to_layout(
    backbone: SwinTransformerV2, *, layout: Layout
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the state dict in a layout, and the entries that it cannot hold, with the reason.

    Raises:
        ValueError: If the layout cannot express the model.
    """
    attention = backbone.layers[0].blocks[0].attn
    if layout is not OWN and attention.position_bias != 'log_cpb':
        raise ValueError(
            f"{layout.name} weights cannot express position_bias='{attention.position_bias}'; "
            "write layout='own'"
        )
    if layout not in (OWN, MMPRETRAIN) and backbone.arch.extra_norm_every:
        raise ValueError(
            f'{layout.name} weights have no place for the extra norms of this arch; write '
            "layout='own'"
        )
    own = {name: value.detach().cpu() for name, value in backbone.state_dict().items()}
    left_out = {}
    if layout is not OWN:
        del own[WINDOWS_BUFFER]
        if own.pop(NUMERICS_ENTRY, None) is not None:
            left_out[NUMERICS_ENTRY] = (
                f'{layout.name} weights do not say that they were trained with the numerics of '
                f'{backbone.numerics}; outputs may differ by 1e-4'
            )
    if layout in _WITH_COORDINATES:
        own |= _coordinate_tables(backbone)
    translation = translate(own, rules=layout.writing_rules(num_stages=len(backbone.layers)))
    left_out |= {
        name: f'{layout.name} weights have an output norm for the last stage only'
        for name in translation.unmatched
    }
    # Copies: a file of a slice would hold the whole tensor, safetensors refuses shared memory.
    weights = {name: value.clone().contiguous() for name, value in translation.values.items()}
    return weights, left_out


def _coordinate_tables(backbone: SwinTransformerV2) -> dict[str, Tensor]:
    """Make the buffers that tell the windows of the weights, and those of their training."""
    tables = {}
    for i, stage in enumerate(backbone.layers):
        for j, block in enumerate(stage.blocks):
            # A window of one token does not say what it was trained at.
            trained = block.attn.pretrained_window_size
            window = stage.window if min(stage.window) > 1 else trained
            table = relative_coords(
                window,
                pretrained_window_size=trained,
                kind='log_cpb',
                device=torch.device('cpu'),
                dtype=torch.float32,
            )
            sides = (2 * window[0] - 1, 2 * window[1] - 1)
            name = f'layers.{i}.blocks.{j}.attn.relative_coords_table'
            tables[name] = table.unflatten(0, sides)[None]
    return tables
