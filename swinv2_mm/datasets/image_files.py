"""Recognise image files, and decode images and label maps."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from swinv2_mm.errors import DataError, UserError, one_line

from .files import MAX_IMAGE_BYTES, FileFault, read_bytes, shown

# Not all formats of Pillow: PostScript, for example, is a program, which Pillow would run.
FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP', 'TIFF', 'PPM', 'JPEG2000', 'TGA')
# Suffixes of their names, in lower case.
IMAGE_SUFFIXES = (
    '.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm', '.jp2',
    '.tga',
)  # fmt: skip
_MAP_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N')


# Raises the limits below, such as ``side_px=100000,aspect_ratio=1000``; ``none`` lifts one.
LIMITS_VARIABLE = 'SWINV2_MM_IMAGE_LIMITS'


@dataclass(frozen=True)
class ImageLimits:
    """The most that an image may have; ``None``: no limit.

    A file of 289 bytes can hold 70,000 x 1 pixels, which take 10 GB when a test pipeline resizes
    the shorter side.

    Attributes:
        num_bytes: Bytes of the file.
        num_pixels: Pixels of the image; the default is what Pillow takes for an attack.
        side_px: Length of either side.
        aspect_ratio: Longer by shorter side: test pipelines resize the shorter one.
    """

    num_bytes: int | None = MAX_IMAGE_BYTES
    num_pixels: int | None = 178_956_970
    side_px: int | None = 65_000
    aspect_ratio: float | None = 200

    # Whether a message says how to raise the limit.
    can_be_raised: ClassVar[bool] = True

    def check(self, size: tuple[int, int], *, name: str) -> None:
        """Raise if an image of a size (width, height) exceeds a limit.

        Raises:
            FileFault: If it exceeds a limit.
        """
        width, height = size
        measures = (
            (width * height, self.num_pixels, 'pixels in all', 'num_pixels'),
            (max(size), self.side_px, 'pixels on a side', 'side_px'),
            (
                max(size) / max(min(size), 1),
                self.aspect_ratio,
                'times as long as wide',
                'aspect_ratio',
            ),
        )
        for value, limit, what, setting in measures:
            if limit is not None and value > limit:
                detail = (
                    f'it has {width:,} x {height:,} pixels; the limit is {limit:,} {what}: cut or '
                    f'scale it{self._raising(setting)}'
                )
                raise FileFault(f'{name} is too large: {detail}', detail=detail)

    def _raising(self, setting: str) -> str:
        """Return how to raise a limit, as the end of a sentence."""
        return f', or set {LIMITS_VARIABLE}={setting}=...' if self.can_be_raised else ''


@dataclass(frozen=True)
class UploadLimits(ImageLimits):
    """The most that an image may have which others upload: less, and not theirs to raise."""

    num_bytes: int | None = 20 << 20
    num_pixels: int | None = 40_000_000
    side_px: int | None = 20_000
    aspect_ratio: float | None = 100

    can_be_raised: ClassVar[bool] = False


def image_limits() -> ImageLimits:
    """Return the limits for images of a user, as the environment raises or lowers them.

    Raises:
        UserError: If what the environment says is no limit.
    """
    return _parsed_limits(os.environ.get(LIMITS_VARIABLE, ''))


@cache
def _parsed_limits(text: str) -> ImageLimits:
    changed: dict[str, Any] = {}
    for setting in filter(None, text.split(',')):
        name, _, value = setting.partition('=')
        try:
            changed[name.strip()] = None if value.strip() == 'none' else float(value)
            limits = replace(ImageLimits(), **changed)
        except (TypeError, ValueError):
            names = ', '.join(field.name for field in fields(ImageLimits))
            raise UserError(
                f'{LIMITS_VARIABLE}: {setting!r} is no NAME=NUMBER or NAME=none (names: {names})'
            ) from None
    if not changed:
        return ImageLimits()
    # Pillow warns of more, and refuses twice as many.
    Image.MAX_IMAGE_PIXELS = limits.num_pixels and int(limits.num_pixels)
    return limits


def is_image_name(name: str) -> bool:
    """Whether a file name ends as that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def read_image(path: str, *, limits: ImageLimits | None = None) -> np.ndarray:
    """Read an image.

    The first frame of an animation counts, and transparency is ignored. Of 16-bit channels the
    upper 8 bits are kept. The image is turned as its EXIF tag says, if that can be read.

    Args:
        path: The file.
        limits: Limits, checked before the pixels are decoded; default those of ``image_limits``.

    Shapes:
        -> (H, W, 3), BGR, uint8

    Raises:
        FileFault: If it is no whole image, or exceeds a limit.
    """
    with opened(path, limits=limits) as (image, _):
        return _bgr(image)


def decode_image(content: bytes, *, limits: ImageLimits, name: str = 'the image') -> np.ndarray:
    """Decode the content of an image file as ``read_image`` does.

    Args:
        content: Bytes of the file.
        limits: Limits, checked before the pixels are decoded.
        name: Name of the image, for messages.

    Shapes:
        -> (H, W, 3), BGR, uint8

    Raises:
        FileFault: If it is no whole image, or exceeds a limit.
    """
    with _decoding(content, name=name, limits=limits) as image:
        return _bgr(image)


def _bgr(image: Image.Image) -> np.ndarray:
    image.load()
    return np.ascontiguousarray(np.asarray(eight_bit_rgb(image))[:, :, ::-1])


def read_label_map(path: str, *, packs_ids: bool = False) -> np.ndarray:
    """Read the values of a label map, (H, W).

    Args:
        path: The image file.
        packs_ids: Whether red, green and blue are the digits of an id, as in panoptic maps.

    Raises:
        FileFault: If it is missing, unreadable or, unless ids are packed, in colour.
    """
    name = f'label map {shown(path)}'
    with opened(path, what='label map') as (image, _):
        if packs_ids:
            red, green, blue = np.asarray(image.convert('RGB'), np.int64).transpose(2, 0, 1)
            return red + 256 * green + 256**2 * blue
        if image.mode not in _MAP_MODES:
            detail = f'mode {image.mode}'
            raise FileFault(f'{name} is a colour image ({detail})', kind='mode', detail=detail)
        values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values


@contextmanager
def opened(
    path: str, *, what: str = 'image', limits: ImageLimits | None = None
) -> Iterator[tuple[Image.Image, bytes]]:
    """Open an image file that is within limits, its pixels not yet decoded, and give its bytes too.

    Whatever fails in the block is a fault of the file.

    Args:
        path: The file.
        what: What the file is, for messages.
        limits: Default those of ``image_limits``.

    Raises:
        FileFault: If it is no image or exceeds a limit (``unreadable``), or fails to decode
            (``truncated``).
    """
    limits = limits or image_limits()
    name = f'{what} {shown(path)}'
    content = read_bytes(path, what=what, limit=limits.num_bytes)
    with _decoding(content, name=name, limits=limits) as image:
        yield image, content


@contextmanager
def _decoding(content: bytes, *, name: str, limits: ImageLimits) -> Iterator[Image.Image]:
    kind = 'unreadable'
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            limits.check(image.size, name=name)
            yield image
            return
    except DataError:
        raise
    except UnidentifiedImageError:
        # Pillow names the memory address of what it could not identify.
        reason = 'it is in no known image format'
    except Image.DecompressionBombError:
        reason = (
            f'it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: cut or scale it'
            f'{limits._raising("num_pixels")}'
        )
    except Exception as error:
        # Decoders raise errors of any type on malformed bytes.
        kind, reason = 'truncated', one_line(error) or type(error).__name__
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
        # Pillow has one mode for 16 bits of other formats, and for more bits or a sign in TIFF.
        if image.mode == 'I' and image.format == 'TIFF':
            raise ValueError('its pixels have 32 bits or a sign; save it with 8 or 16 bits')
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert('RGB')
    # Pillow warns of a palette with transparency that is turned into colours at once.
    pixels = image.convert('RGBA') if 'transparency' in image.info else image
    # Pillow copies what it need not convert.
    return pixels if pixels.mode == 'RGB' else pixels.convert('RGB')
