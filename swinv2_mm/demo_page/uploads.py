"""Images from people one does not know."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from swinv2_mm.errors import DataError

MAX_BYTES = 20 << 20
MAX_PIXELS = 40_000_000
# Formats that Pillow decodes itself: no scripts (EPS), no pages, nothing that refers elsewhere.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF')


def decode_upload(content: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image after a look at its header.

    Shapes:
        -> (H, W, 3), BGR, upright; of an animation the first picture

    Raises:
        DataError: If it is none of ``FORMATS``, too large, or broken.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f'the image has {width} x {height} pixels; {max_pixels / 1e6:.0f} million at '
                    'most are taken'
                )
            upright = ImageOps.exif_transpose(image).convert('RGB')
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError('the image has far too many pixels') from None
    except Exception as error:
        # Whatever a decoder raises on bytes that somebody has made up.
        raise DataError(
            f'this is not a complete {", ".join(FORMATS[:-1])} or {FORMATS[-1]} image'
        ) from error
    return np.ascontiguousarray(np.asarray(upright)[:, :, ::-1])
