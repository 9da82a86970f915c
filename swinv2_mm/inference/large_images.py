"""Read an image in strips of rows: by windows where its format allows it, else decoded whole."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from swinv2_mm.datasets.files import FileFault, shown
from swinv2_mm.datasets.image_files import ImageLimits, image_limits, read_image
from swinv2_mm.errors import one_line

# What is decoded whole takes 10 bytes per pixel for a moment: 5.4 GB.
_MAX_DECODED_PIXELS = 2**29
# GDAL's cache of blocks, for all open files together.
_CACHE_MB = 128
# Drivers of GDAL by how their files begin: TIFF and BigTIFF in both orders of bytes, JPEG 2000.
_DRIVERS = {
    b'II*\0': 'GTiff',
    b'MM\0*': 'GTiff',
    b'II+\0': 'GTiff',
    b'MM\0+': 'GTiff',
    b'\0\0\0\x0cjP  ': 'JP2OpenJPEG',
}
# Tags of TIFF, and colours that Pillow converts: white is zero, CMYK, CIE Lab.
_ORIENTATION, _PHOTOMETRIC = 274, 262
_RGB, _CONVERTED = 2, (0, 5, 8)
# In the order of OpenCV.
_COLOURS = ('blue', 'green', 'red')


class RowReader(Protocol):
    """An image that is read in rows.

    Attributes:
        size: (height, width).
        georeference: Coordinate reference system and affine transform of a GeoTIFF, as arguments
            of ``rasterio.open``; empty without them.
    """

    size: tuple[int, int]
    georeference: dict[str, Any]

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Return rows of the image, (h, W, 3), BGR, uint8."""
        ...


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array."""

    image: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[:2]

    @property
    def georeference(self) -> dict[str, Any]:
        """None: an array has no georeference."""
        return {}

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Return a part of the array."""
        return self.image[top:bottom]


class RasterRows:
    """Rows of a file that is read by windows.

    Red, green and blue are the bands that the file calls so, else the first three; of two the first
    is grey. Of more than 8 bits the upper 8 are kept, as in ``read_image``.

    Args:
        dataset: An open data set of rasterio.
        name: Name of the image, for messages.

    Raises:
        FileFault: If its pixels are not 8 or 16 bits wide.
    """

    def __init__(self, dataset: Any, *, name: str) -> None:
        self._dataset, self._name = dataset, name
        self.size = dataset.height, dataset.width
        self.georeference: dict[str, Any] = {}
        if dataset.crs is not None or not dataset.transform.is_identity:
            self.georeference = {'crs': dataset.crs, 'transform': dataset.transform}
        self._bands = [3, 2, 1] if dataset.count >= 3 else [1]
        meanings = [meaning.name for meaning in dataset.colorinterp]
        if {*_COLOURS} <= {*meanings}:
            self._bands = [meanings.index(colour) + 1 for colour in _COLOURS]
        kinds = {dataset.dtypes[band - 1] for band in self._bands}
        if not kinds <= {'uint8', 'uint16'}:
            detail = f'its pixels are {", ".join(sorted(kinds))}; save it with 8 or 16 bits'
            raise FileFault(f'{name} cannot be read: {detail}', detail=detail)
        bits = dataset.tags(self._bands[0], ns='IMAGE_STRUCTURE').get('NBITS')
        self._num_bits = int(bits or 8 * np.dtype(kinds.pop()).itemsize)
        self._colours = None
        if meanings == ['palette']:
            table = dataset.colormap(1)
            colours = [table.get(number, (0, 0, 0))[2::-1] for number in range(256)]
            self._colours = np.array(colours, np.uint8)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Read and decode the blocks that the rows lie in."""
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        window = Window(0, top, self.size[1], bottom - top)
        try:
            values = self._dataset.read(self._bands, window=window)
        except RasterioError as error:
            detail = one_line(error.__cause__ or error)
            raise FileFault(
                f'{self._name} cannot be read: {detail}', kind='truncated', detail=detail
            ) from error
        if self._colours is not None:
            return self._colours[values[0]]
        if self._num_bits > 8:
            values = (values >> (self._num_bits - 8)).astype(np.uint8)
        elif self._num_bits < 8:
            values = (values * (255 / (2**self._num_bits - 1))).astype(np.uint8)
        return np.ascontiguousarray(
            np.broadcast_to(values.transpose(1, 2, 0), (*values.shape[1:], 3))
        )


def open_rows(source: Any) -> AbstractContextManager[RowReader]:
    """Open an image to be read in rows.

    TIFF and JPEG 2000 are read by windows where rasterio is installed, whatever their size. All
    else is decoded whole: 4 bytes per pixel by Pillow, 3 as an array, and for a moment 3 more.

    Args:
        source: A path, or an array (H, W, 3) of bytes, BGR.

    Raises:
        DataError: If it is no image, or exceeds a limit.
    """
    if isinstance(source, np.ndarray):
        return nullcontext(ArrayRows(source))
    path = os.fspath(source)
    # Tiles have the proportions that a model sees.
    limits = replace(image_limits(), aspect_ratio=None)
    if (driver := _driver(path)) is not None:
        with suppress(ImportError):
            import rasterio  # noqa: F401

            return _open_raster(path, driver=driver, limits=limits)
    if limits.num_pixels == ImageLimits.num_pixels:
        limits = replace(limits, num_pixels=_MAX_DECODED_PIXELS)
        Image.MAX_IMAGE_PIXELS = _MAX_DECODED_PIXELS
    return nullcontext(ArrayRows(read_image(path, limits=limits)))


@contextmanager
def _open_raster(path: str, *, driver: str, limits: ImageLimits) -> Iterator[RowReader]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    warnings.filterwarnings('ignore', category=NotGeoreferencedWarning)
    name = f'image {shown(path)}'
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        try:
            dataset = rasterio.open(path, driver=driver)
        except (RasterioError, OSError) as error:
            detail = one_line(error)
            raise FileFault(f'{name} cannot be read: {detail}', detail=detail) from error
        with dataset:
            size = dataset.width, dataset.height
            replace(limits, num_pixels=None).check(size, name=name)
            # Each block is decoded as a whole.
            for height, width in dataset.block_shapes:
                limits.check((width, height), name=f'a block of {name}')
            yield RasterRows(dataset, name=name)


def _driver(path: str) -> str | None:
    """Return the driver that reads a file by windows; images that Pillow converts have none."""
    if not os.path.isfile(path):
        return None
    with open(path, 'rb') as file:
        beginning = file.read(max(map(len, _DRIVERS)))
    # What Pillow cannot read, such as five bands, has no tags for it either.
    with suppress(Exception), Image.open(path, formats=('TIFF',)) as image:
        tags = image.tag_v2
        if tags.get(_ORIENTATION, 1) != 1 or tags.get(_PHOTOMETRIC, _RGB) in _CONVERTED:
            return None
    return next((name for start, name in _DRIVERS.items() if beginning.startswith(start)), None)
