"""The weights of a backbone into a file of a chosen layout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.position_bias import relative_coords

from .layouts import HUGGINGFACE, OFFICIAL, OWN, TIMM, WINDOWS_BUFFER, Layout
from .loading import find_backbone
from .rules import translate

_WRITABLE = {layout.name: layout for layout in (OWN, OFFICIAL, TIMM, HUGGINGFACE)}


def save_pretrained(
    model: nn.Module,
    path: str | os.PathLike,
    *,
    layout: Literal['own', 'official', 'timm', 'huggingface'] = 'own',
) -> dict[str, str]:
    """Write the backbone of a model so that ``load_pretrained``, or a peer, can read it.

    The file appears complete or not at all. Only ``own`` holds everything; classification
    models, which the other layouts come from, have no norms on the first outputs.

    Args:
        model: A ``SwinTransformerV2``, or a module that holds exactly one.
        path: Ends in ``.safetensors``, or in ``.pth``, ``.pt`` or ``.bin``.
        layout: Names and arrangement of the weights.

    Returns:
        What the layout has no place for, each with the reason.

    Raises:
        ValueError: If the layout or the suffix is unknown, if the layout cannot express the
            model, or if ``model`` does not hold exactly one backbone.
    """
    backbone = find_backbone(model)
    if layout not in _WRITABLE:
        raise ValueError(f"unknown layout '{layout}' (known: {', '.join(_WRITABLE)})")
    path = Path(path)
    if path.suffix not in ('.safetensors', '.pth', '.pt', '.bin'):
        raise ValueError(f'{path} must end in .safetensors, .pth, .pt or .bin')
    weights, left_out = to_layout(backbone, layout=_WRITABLE[layout])
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        if path.suffix == '.safetensors':
            windows = json.dumps(backbone.reference_windows)
            # Others read the format; the windows find their way back to us.
            save_file(weights, temporary, metadata={'format': 'pt', WINDOWS_BUFFER: windows})
        else:
            torch.save(weights, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return left_out


def to_layout(
    backbone: SwinTransformerV2, *, layout: Layout
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights in a layout, and what it has no place for, with the reason.

    Raises:
        ValueError: If the layout cannot express the model.
    """
    attention = backbone.layers[0].blocks[0].attn
    if layout is not OWN and attention.position_bias != 'log_cpb':
        raise ValueError(
            f"{layout.name} weights cannot express position_bias='{attention.position_bias}'; "
            "write layout='own'"
        )
    if layout in (OFFICIAL, TIMM, HUGGINGFACE) and backbone.arch.extra_norm_every:
        raise ValueError(
            f'{layout.name} weights have no place for the extra norms of this arch; write '
            "layout='own'"
        )
    own = {name: value.detach().cpu() for name, value in backbone.state_dict().items()}
    if layout is not OWN:
        del own[WINDOWS_BUFFER]
    translation = translate(own, rules=layout.writing_rules(num_stages=len(backbone.layers)))
    left_out = {
        name: f'{layout.name} weights have an output norm for the last stage only'
        for name in translation.unmatched
    }
    # Copies: a file of a slice would hold the whole tensor, safetensors refuses shared memory.
    weights = {name: value.clone().contiguous() for name, value in translation.values.items()}
    if layout is OFFICIAL:
        weights |= _coordinate_tables(backbone)
    return weights, left_out


def _coordinate_tables(backbone: SwinTransformerV2) -> dict[str, Tensor]:
    """Make the buffers by which official weights say what windows they were trained at."""
    tables = {}
    for i, stage in enumerate(backbone.layers):
        for j, block in enumerate(stage.blocks):
            window = block.attn.reference_window
            table = relative_coords(
                window,
                reference_window=window,
                kind='log_cpb',
                device=torch.device('cpu'),
                dtype=torch.float32,
            )
            sides = (2 * window[0] - 1, 2 * window[1] - 1)
            name = f'layers.{i}.blocks.{j}.attn.relative_coords_table'
            tables[name] = table.unflatten(0, sides)[None].clone()
    return tables
