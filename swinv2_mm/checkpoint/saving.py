"""The weights of a backbone into a file of a chosen layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.position_bias import relative_coords

from .heads import find_head
from .huggingface_config import hugging_face_config
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

    A classifier's linear head goes with it. The file appears complete or not at all. Only
    ``own`` holds everything; classification models, which the other layouts come from, have no
    norms on the first outputs.

    Args:
        model: A ``SwinTransformerV2``, or a module that holds exactly one.
        path: Ends in ``.safetensors``, or in ``.pth``, ``.pt`` or ``.bin``. With
            ``huggingface``, a path without a suffix is a folder that gets
            ``model.safetensors`` and ``config.json``, as ``from_pretrained`` wants it.
        layout: Names and arrangement of the weights.

    Returns:
        What the layout has no place for, each with the reason.

    Raises:
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
    if layout == 'huggingface' and not path.suffix:
        config = hugging_face_config(
            backbone, num_classes=None if head is None else head[1].out_features
        )
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=2) + '\n'
        write_whole(path / 'config.json', lambda part: part.write_text(text))
        path /= 'model.safetensors'
    if path.suffix == '.safetensors':
        # Others read the format; the windows find their way back to us.
        notes = {'format': 'pt', WINDOWS_BUFFER: json.dumps(backbone.reference_windows)}
        write_whole(path, lambda part: save_file(weights, part, metadata=notes))
    elif path.suffix in ('.pth', '.pt', '.bin'):
        write_whole(path, lambda part: torch.save(weights, part))
    else:
        raise ValueError(f'{path} must end in .safetensors, .pth, .pt or .bin')
    return left_out


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a temporary file, and move it to ``path`` when it is complete."""
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        write(part)
        with part.open('rb') as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _with_head(weights: dict[str, Tensor], head: nn.Linear, *, layout: Layout) -> dict[str, Tensor]:
    """Add a head under the name that it has in the classifiers of a layout."""
    if layout is HUGGINGFACE:
        weights = {f'swinv2.{name}': value for name, value in weights.items()}
    name = {HUGGINGFACE.name: 'classifier', TIMM.name: 'head.fc'}.get(layout.name, 'head')
    values = {f'{name}.{k}': v.detach().cpu().clone() for k, v in head.state_dict().items()}
    return weights | values


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
