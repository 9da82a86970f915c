"""The ``config.json`` by which timm builds a model from a folder: ``local-dir:FOLDER``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swinv2_mm.core import SwinTransformerV2

from .huggingface_config import image_and_window, side_of

# A registered name of timm; what differs from it is in ``model_args``.
_ARCHITECTURE = 'swinv2_tiny_window8_256'


def timm_config(
    backbone: SwinTransformerV2,
    *,
    num_classes: int | None,
    image_size_px: int | None = None,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe a backbone as timm's hub does.

    Args:
        backbone: What to describe, at its present windows.
        num_classes: Outputs of the classification head; ``None`` if there is none.
        image_size_px: Side of the images; default the one whose maps the windows fit.
        classes: Their names.

    Raises:
        ValueError: If the model has not one square window, clipped to the map of each stage.
    """
    side_px, window = image_and_window(backbone, image_size_px=image_size_px)
    channels = backbone.patch_embed.proj.in_channels
    config: dict[str, Any] = {
        'architecture': _ARCHITECTURE,
        'num_classes': num_classes or 0,
        'num_features': backbone.out_channels[-1],
        'model_args': {
            'img_size': side_px,
            'patch_size': backbone.patch_embed.proj.stride[0],
            'in_chans': channels,
            'embed_dim': backbone.arch.embed_dim,
            'depths': list(backbone.arch.depths),
            'num_heads': list(backbone.arch.num_heads),
            'window_size': window,
            'pretrained_window_sizes': [
                side_of(size) for size in backbone.get_pretrained_window_sizes()
            ],
        },
        'pretrained_cfg': {
            'input_size': [channels, side_px, side_px],
            'fixed_input_size': True,
            'num_classes': num_classes or 0,
            'first_conv': 'patch_embed.proj',
            'classifier': 'head.fc',
        },
    }
    if classes:
        config['label_names'] = list(classes)
    return config
