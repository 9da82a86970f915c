"""Recognise image files, and decode images and label maps."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from swinv2_mm.errors import DataError

from .files import MAX_IMAGE_BYTES, FileFault, read_bytes, shown

# Not all that Pillow knows: PostScript, for one, is a program, and Pillow has it run.
FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP', 'TIFF', 'PPM', 'JPEG2000', 'TGA')
# How their names end, in lower case.
IMAGE_SUFFIXES = (
    '.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm', '.jp2',
    '.tga',
)  # fmt: skip
# Of 16 bits the upper 8 count, as OpenCV has it.
_LARGEST_DEEP = 2**16 - 1
_MAP_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N')


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
        """Raise if an image of a size (width, height) exceeds a limit.

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


def is_image_name(name: str) -> bool:
    """Whether a file name ends as that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


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
        FileFault: If it is no whole image, or has more pixels than Pillow takes for an attack
            (178,956,970).
        DataError: If it exceeds a limit.
    """
    limits = limits or ImageLimits()
    content = read_bytes(path, limit=limits.num_bytes)
    with decoding(content, name=f'image {shown(path)}') as image:
        limits.check(image.size, name=shown(path))
        image.load()
        return np.ascontiguousarray(np.asarray(eight_bit_rgb(image))[:, :, ::-1])


def read_label_map(path: str, *, packs_ids: bool = False) -> np.ndarray:
    """Read the values of a label map, (H, W).

    Args:
        path: Of the image file.
        packs_ids: Whether red, green and blue are the digits of an id, as in panoptic maps.

    Raises:
        FileFault: If it is missing, unreadable or, unless ids are packed, in colour.
    """
    name = f'label map {shown(path)}'
    with decoding(read_bytes(path, what='label map'), name=name) as image:
        if packs_ids:
            red, green, blue = np.asarray(image.convert('RGB'), np.int64).transpose(2, 0, 1)
            return red + 256 * green + 256**2 * blue
        if image.mode not in _MAP_MODES:
            detail = f'mode {image.mode}'
            raise FileFault(f'{name} is a colour image ({detail})', kind='mode', detail=detail)
        values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values


@contextmanager
def decoding(content: bytes, *, name: str) -> Iterator[Image.Image]:
    """Open the bytes of an image file; whatever fails in the block is a fault of the file.

    Raises:
        FileFault: If the bytes are no image (``unreadable``), or fail to decode (``truncated``).
    """
    kind = 'unreadable'
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            yield image
            return
    except DataError:
        raise
    except UnidentifiedImageError:
        # Pillow names the memory address of what it could not identify.
        reason = 'it is in no known image format'
    except Image.DecompressionBombError:
        reason = (
            f'it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: scale it down or cut it into '
            'pieces'
        )
    except Exception as error:
        # Decoders raise errors of any type on malformed bytes.
        kind, reason = 'truncated', ' '.join(str(error).split()) or type(error).__name__
    raise FileFault(f'{name} cannot be read: {reason}', kind=kind, detail=reason)


def turn_upright(image: Image.Image) -> None:
    """Turn an image in place as its EXIF tag asks; a tag that cannot be read turns nothing."""
    # Many programs write broken tags; the pixels are whole.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def eight_bit_rgb(image: Image.Image) -> Image.Image:
    """Return an image upright, with eight bits of red, green and blue."""
    turn_upright(image)
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers; save it with 8 or 16 bits')
    if image.mode == 'I' or image.mode.startswith('I;16'):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > _LARGEST_DEEP:
            raise ValueError('its pixels have 32 bits; save it with 8 or 16')
        return Image.fromarray((values >> 8).astype(np.uint8)).convert('RGB')
    # Pillow warns of a palette with transparency that is turned into colours at once.
    pixels = image.convert('RGBA') if 'transparency' in image.info else image
    return pixels.convert('RGB')
