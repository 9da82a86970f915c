"""Image files of any kind as eight bits of blue, green and red, upright."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from swinv2_mm.errors import DataError

from .files import MAX_IMAGE_BYTES, read_bytes, shown

# Not all that Pillow knows: PostScript, for one, is a program, and Pillow has it run.
FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP', 'TIFF', 'PPM', 'JPEG2000', 'TGA')
_ORIENTATION_TAG = 0x0112
# What undoes each value of the tag; 1 is upright.
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Of 16 bits the upper 8 count, as OpenCV has it.
_LARGEST_DEEP = 2**16 - 1


@dataclass(frozen=True)
class ImageLimits:
    """The most that an image may have; ``None``: no limit.

    Attributes:
        num_bytes: Of the file.
        num_pixels: All in all.
        side_px: On either side.
        aspect_ratio: Of the longer to the shorter side: test pipelines resize the shorter one.
    """

    num_bytes: int | None = MAX_IMAGE_BYTES
    num_pixels: int | None = None
    side_px: int | None = None
    aspect_ratio: float | None = None

    def check(self, size: tuple[int, int], *, name: str) -> None:
        """Refuse an image of a size (width, height).

        Raises:
            DataError: If it exceeds a limit.
        """
        width, height = size
        measures = (
            (width * height, self.num_pixels, 'pixels in all'),
            (max(size), self.side_px, 'pixels on a side'),
            (max(size) / max(min(size), 1), self.aspect_ratio, 'times as long as wide'),
        )
        for value, limit, what in measures:
            if limit is not None and value > limit:
                raise DataError(
                    f'image {name} has {width:,} x {height:,} pixels; the limit is {limit:,} {what}'
                )


def read_image(path: str, *, limits: ImageLimits | None = None) -> np.ndarray:
    """Read an image.

    Of an animation the first frame is taken; transparency is ignored; of 16 bits a channel the
    upper 8 are kept; an EXIF tag turns the image, one that cannot be read does not.

    Args:
        path: Of the file.
        limits: Are checked before the pixels are decoded.

    Shapes:
        -> (H, W, 3), BGR, uint8

    Raises:
        DataError: If it is no whole image, exceeds a limit, or has more pixels than Pillow takes
            for an attack (178,956,970).
    """
    limits = limits or ImageLimits()
    content = read_bytes(path, limit=limits.num_bytes)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            limits.check(image.size, name=shown(path))
            image.load()
            return np.ascontiguousarray(np.asarray(_upright_rgb(image))[:, :, ::-1])
    except DataError:
        raise
    except UnidentifiedImageError as error:
        reason = 'it is in no known image format'
        raise DataError(f'image {shown(path)} cannot be read: {reason}') from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f'image {shown(path)} has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: scale it '
            'down or cut it into pieces'
        ) from error
    except Exception as error:
        # Decoders raise whatever comes up on bytes that somebody has made up.
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise DataError(f'image {shown(path)} cannot be read: {reason}') from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers; save it with 8 or 16 bits')
    if image.mode == 'I' or image.mode.startswith('I;16'):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > _LARGEST_DEEP:
            raise ValueError('its pixels have 32 bits; save it with 8 or 16')
        pixels = Image.fromarray((values >> 8).astype(np.uint8))
    else:
        # Pillow warns of a palette with transparency that is turned into colours at once.
        pixels = image.convert('RGBA') if 'transparency' in image.info else image
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION_TAG))
    except Exception:
        # Many programs write broken tags; the pixels are whole.
        turn = None
    pixels = pixels.convert('RGB')
    return pixels if turn is None else pixels.transpose(turn)
