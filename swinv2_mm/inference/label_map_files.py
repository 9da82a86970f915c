"""Write label maps strip by strip: PNG, and GeoTIFF where the image is one."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swinv2_mm.datasets.palette import Colour

from .class_names import Classes
from .large_images import RowReader
from .prediction import label_type

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_GREY, _PNG_PALETTE = 0, 3
_BLOCK_PX = 512
_INCOMPLETE = 'it is incomplete on the disk, which may be full'


def open_label_map(path: Path, image: RowReader, *, classes: Classes) -> PngStrips | GeoTiffStrips:
    """Open a file that takes the label map of an image: see ``label_map_suffix``."""
    settings: dict[str, Any] = {
        'size': image.size,
        'dtype': np.dtype(label_type(classes)),
        'palette': classes.palette,
    }
    if image.georeference:
        return GeoTiffStrips(path, georeference=image.georeference, **settings)
    return PngStrips(path, **settings)


def label_map_suffix(image: RowReader) -> str:
    """Return the suffix of the file: ``.tif`` for a georeferenced image, else ``.png``."""
    return '.tif' if image.georeference else '.png'


class PngStrips:
    """A PNG file of class numbers that is compressed as its rows come.

    Args:
        path: The file.
        size: Size of the label map, (height, width).
        dtype: ``uint8`` or ``uint16``.
        palette: Colours of the classes, which 8 bits have.
    """

    def __init__(
        self, path: Path, *, size: tuple[int, int], dtype: np.dtype, palette: Sequence[Colour]
    ) -> None:
        self._file = path.open('wb')
        self._compressor = zlib.compressobj()
        self._dtype = np.dtype(dtype).newbyteorder('>')
        height, width = size
        is_small = self._dtype.itemsize == 1
        kind = _PNG_PALETTE if is_small else _PNG_GREY
        self._file.write(_PNG_SIGNATURE)
        header = struct.pack('>IIBBBBB', width, height, 8 * self._dtype.itemsize, kind, 0, 0, 0)
        self._chunk(b'IHDR', header)
        if is_small:
            self._chunk(b'PLTE', bytes(channel for colour in palette for channel in colour))

    def write(self, labels: np.ndarray) -> None:
        """Append rows (h, W)."""
        # Each row begins with the number of its filter: none.
        rows = np.zeros((len(labels), 1 + labels.shape[1] * self._dtype.itemsize), np.uint8)
        rows[:, 1:] = labels.astype(self._dtype).view(np.uint8)
        self._chunk(b'IDAT', self._compressor.compress(rows))

    def _chunk(self, kind: bytes, content: bytes) -> None:
        if content or kind == b'IEND':
            check = zlib.crc32(content, zlib.crc32(kind))
            for part in (struct.pack('>I', len(content)), kind, content, struct.pack('>I', check)):
                self._file.write(part)

    def __enter__(self) -> PngStrips:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._file:
            if error is None:
                self._chunk(b'IDAT', self._compressor.flush())
                self._chunk(b'IEND', b'')


class GeoTiffStrips:
    """A GeoTIFF of class numbers, in the place of the image.

    Args:
        path: The file.
        size: Size of the label map, (height, width).
        dtype: ``uint8`` or ``uint16``.
        palette: Colours of the classes, which 8 bits have.
        georeference: See ``RowReader``.

    Raises:
        OSError: On leaving, if the file does not hold what was written.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        dtype: np.dtype,
        palette: Sequence[Colour],
        georeference: dict[str, Any],
    ) -> None:
        import rasterio

        self._path = path
        self._dataset = rasterio.open(
            path,
            'w',
            driver='GTiff',
            height=size[0],
            width=size[1],
            count=1,
            dtype=dtype,
            tiled=True,
            blockxsize=_BLOCK_PX,
            blockysize=_BLOCK_PX,
            compress='deflate',
            BIGTIFF='IF_SAFER',
            **georeference,
        )
        if np.dtype(dtype) == np.uint8:
            self._dataset.write_colormap(1, {k: (*c, 255) for k, c in enumerate(palette)})
        # Of each strip, as (number of rows, CRC-32).
        self._written: list[tuple[int, int]] = []

    def write(self, labels: np.ndarray) -> None:
        """Append rows (h, W)."""
        from rasterio.errors import RasterioError

        top = sum(height for height, _ in self._written)
        try:
            self._dataset.write(labels, 1, window=_rows(self._dataset, top, len(labels)))
        except RasterioError as error:
            raise OSError(errno.EIO, _INCOMPLETE) from error
        self._written.append((len(labels), zlib.crc32(np.ascontiguousarray(labels))))

    def __enter__(self) -> GeoTiffStrips:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import rasterio

        # What GDAL prints of a full disk stays in it.
        with rasterio.Env():
            self._dataset.close()
        if error is None:
            self._verify()

    def _verify(self) -> None:
        """Read the file back: GDAL drops, without an error, what it cannot write on closing."""
        import rasterio
        from rasterio.errors import RasterioError

        top, is_whole = 0, True
        try:
            with rasterio.open(self._path) as dataset:
                for height, checksum in self._written:
                    labels = dataset.read(1, window=_rows(dataset, top, height))
                    is_whole &= zlib.crc32(labels) == checksum
                    top += height
        except RasterioError:
            is_whole = False
        if not is_whole:
            raise OSError(errno.EIO, _INCOMPLETE)


def _rows(dataset: Any, top: int, height: int) -> Any:
    """Return the window of rows of a dataset."""
    from rasterio.windows import Window

    return Window(0, top, dataset.width, height)
