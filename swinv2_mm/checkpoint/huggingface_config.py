"""Write the ``config.json`` from which Hugging Face's transformers builds a model."""

from __future__ import annotations

from typing import Any

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.window_partition import Size


def hugging_face_config(backbone: SwinTransformerV2, *, num_classes: int | None) -> dict[str, Any]:
    """Describe a backbone as ``transformers.Swinv2Config`` does.

    Args:
        backbone: What to describe, at its present windows.
        num_classes: Outputs of the classification head; ``None`` if there is none.

    Raises:
        ValueError: If there is no such configuration: it has one square window, clipped to the
            map of each stage.
    """
    image_size_px, window = _image_and_window(backbone)
    config = {
        'model_type': 'swinv2',
        'architectures': ['Swinv2Model' if num_classes is None else 'Swinv2ForImageClassification'],
        'image_size': image_size_px,
        'patch_size': backbone.patch_embed.proj.stride[0],
        'num_channels': backbone.patch_embed.proj.in_channels,
        'embed_dim': backbone.arch.embed_dim,
        'depths': list(backbone.arch.depths),
        'num_heads': list(backbone.arch.num_heads),
        'window_size': window,
        'pretrained_window_sizes': [_side(size) for size in backbone.get_pretrained_window_sizes()],
        'mlp_ratio': 4.0,
        'qkv_bias': True,
        'hidden_act': 'gelu',
        'use_absolute_embeddings': False,
        'layer_norm_eps': backbone.patch_embed.norm.eps,
    }
    if num_classes is not None:
        config['id2label'] = {str(i): f'LABEL_{i}' for i in range(num_classes)}
        config['label2id'] = {f'LABEL_{i}': i for i in range(num_classes)}
    return config


def _image_and_window(backbone: SwinTransformerV2) -> tuple[int, int]:
    """Find the image side whose maps clip one window to those of the model."""
    sides = [_side(size) for size in backbone.window_sizes]
    patch_size_px = backbone.patch_embed.proj.stride[0]
    image_size_px = patch_size_px * sides[-1] * 2 ** (len(sides) - 1)
    maps = [image_size_px // (patch_size_px * 2**stage) for stage in range(len(sides))]
    if sides != [min(sides[0], side) for side in maps]:
        raise ValueError(
            f"huggingface's config has one window for all stages, the model has {sides}"
        )
    return image_size_px, sides[0]


def _side(window: Size) -> int:
    if window[0] != window[1]:
        raise ValueError(f"huggingface's config has square windows, the model has {window}")
    return window[0]
