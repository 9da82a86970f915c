"""Draw the attention of a clicked pixel over the image that the model sees."""

from __future__ import annotations

import io

import numpy as np
from mmengine.dataset import pseudo_collate

from swinv2_mm.analysis.attention_map import attention_maps, draw_attention
from swinv2_mm.analysis.canvas import style
from swinv2_mm.analysis.layers import last_blocks
from swinv2_mm.checkpoint.loading import find_backbone
from swinv2_mm.core.window_partition import Size
from swinv2_mm.errors import UserError
from swinv2_mm.inference import SwinV2Inferencer
from swinv2_mm.inference.preparation import LoadedInput


def attention_picture(inferencer: SwinV2Inferencer, image: np.ndarray, *, pixel: Size) -> bytes:
    """Draw the attention of a pixel in the last two blocks of each stage.

    Args:
        image: (H, W, 3), BGR.
        pixel: Row and column in it.

    Returns:
        A PNG file.

    Raises:
        UserError: If the model lacks a SwinV2 backbone, or its pipeline cuts the pixel off.
    """
    model = inferencer.model
    try:
        backbone = find_backbone(model)
    except ValueError as error:
        raise UserError(f'attention cannot be drawn: {error}') from error
    loaded = inferencer.prepare(image)
    inner = pixel_seen(loaded, pixel)
    seen = loaded.data['inputs'].flip(0).permute(1, 2, 0).float() / 255
    batch = model.data_preprocessor(pseudo_collate([loaded.data]), False)
    maps = attention_maps(backbone, batch['inputs'], pixel=inner, layers=last_blocks(backbone))
    with style():
        title = f'Attention of pixel {pixel[1]},{pixel[0]} over its window'
        figure = draw_attention(seen, maps, pixel=inner, with_heads=False, title=title)
        file = io.BytesIO()
        figure.savefig(file, format='png', dpi=110)
    return file.getvalue()


def pixel_seen(loaded: LoadedInput, pixel: Size) -> Size:
    """Find a pixel of the original in what the test pipeline, resizing and cropping, makes of it.

    Raises:
        UserError: If it is outside.
    """
    size = height, width = loaded.image.shape[:2]
    if not all(0 <= at < side for at, side in zip(pixel, size, strict=True)):
        raise UserError(f'pixel {pixel[1]},{pixel[0]} is outside of the {width} x {height} image')
    meta = loaded.data['data_samples'].metainfo
    scales = meta.get('scale_factor', (1.0, 1.0))[::-1]
    found = []
    for at, side, scale, left in zip(pixel, size, scales, meta['img_shape'][:2], strict=True):
        # Crops of test pipelines take the middle.
        offset = max(round((round(side * scale) - left) / 2), 0)
        found.append(int((at + 0.5) * scale) - offset)
    if not all(0 <= at < side for at, side in zip(found, meta['img_shape'], strict=False)):
        raise UserError('the model sees the middle of this image only: click nearer to it')
    return found[0], found[1]
