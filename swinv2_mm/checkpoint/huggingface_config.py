"""Write the ``config.json`` from which Hugging Face's transformers builds a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.numerics import SWIN_NUMERICS
from swinv2_mm.core.window_partition import Size


def hugging_face_config(
    backbone: SwinTransformerV2,
    *,
    num_classes: int | None,
    image_size_px: int | None = None,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe a backbone as ``transformers.Swinv2Config`` does.

    Args:
        backbone: What to describe, at its present windows.
        num_classes: Outputs of the classification head; ``None`` if there is none.
        image_size_px: Side of the images; default the one whose maps the windows fit.
        classes: Their names; default ``LABEL_0`` and so on.

    Raises:
        ValueError: If there is no such configuration: it has one square window, clipped to the
            map of each stage.
    """
    image_size_px, window = image_and_window(backbone, image_size_px=image_size_px)
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
        'pretrained_window_sizes': [
            side_of(size) for size in backbone.get_pretrained_window_sizes()
        ],
        'mlp_ratio': 4.0,
        'qkv_bias': True,
        'hidden_act': 'gelu'
        if SWIN_NUMERICS[backbone.numerics].gelu == 'none'
        else 'gelu_pytorch_tanh',
        'use_absolute_embeddings': False,
        'layer_norm_eps': backbone.patch_embed.norm.eps,
    }
    if num_classes is not None:
        names = classes or [f'LABEL_{i}' for i in range(num_classes)]
        config['id2label'] = {str(i): name for i, name in enumerate(names)}
        config['label2id'] = {name: i for i, name in enumerate(names)}
    return config


def image_and_window(backbone: SwinTransformerV2, *, image_size_px: int | None) -> tuple[int, int]:
    """Find the image side whose maps clip one window to those of the model.

    Args:
        backbone: The backbone; its present windows count.
        image_size_px: The side, if that is known.

    Returns:
        The side of the image, and that of the window.

    Raises:
        ValueError: If no image, or not that one, gives the windows of the model.
    """
    sides = [side_of(size) for size in backbone.window_sizes]
    patch_size_px = backbone.patch_embed.proj.stride[0]
    if image_size_px is None:
        image_size_px = patch_size_px * sides[-1] * 2 ** (len(sides) - 1)
    maps = [image_size_px // (patch_size_px * 2**stage) for stage in range(len(sides))]
    if sides != [min(sides[0], side) for side in maps]:
        raise ValueError(
            f'a config of huggingface or timm has one window for all stages, the model has {sides}'
        )
    return image_size_px, sides[0]


def side_of(window: Size) -> int:
    """Return the side of a square window.

    Raises:
        ValueError: If it is not square.
    """
    if window[0] != window[1]:
        raise ValueError(
            f'a config of huggingface or timm has square windows, the model has {window}'
        )
    return window[0]
