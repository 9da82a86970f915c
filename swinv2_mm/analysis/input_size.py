"""Find the test image size of a config."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.config import Config

from swinv2_mm.config.datasets import testing_pipeline
from swinv2_mm.errors import UserError


def input_size_px(cfg: Config, fallback: Sequence[int] | None = None) -> tuple[int, int]:
    """Read height and width off a config.

    A segmentor is measured at a square of the short side that it tests at, as is usual; others at
    the size to which the test pipeline brings an image. A detector's (long, short) side is taken
    as a landscape image, extended to the multiple that its preprocessor pads to.

    Args:
        cfg: A whole config.
        fallback: Height and width if the config does not say.

    Raises:
        UserError: If neither says.
    """
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or {}
    is_segmentor = bool(preprocessor.get('size'))
    size = preprocessor.get('size') or fallback
    for transform in testing_pipeline(cfg):
        if transform.get('type') in ('CenterCrop', 'ResizeEdge'):
            size = transform.get('crop_size') or transform.get('scale')
        elif transform.get('type') == 'Resize' and transform.get('scale'):
            scale = transform['scale']
            # (width, height) there.
            if isinstance(scale, (list, tuple)):
                scale = min(scale) if is_segmentor else (min(scale), max(scale))
            size = scale
    if size is None:
        raise UserError(
            'the config does not say how large its test images are; give --shape H W (in a '
            'metafile.yml: Input Size)'
        )
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    multiple = preprocessor.get('pad_size_divisor') or 1
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple
