"""Write label maps strip by strip: PNG, and GeoTIFF where the image is one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from swinv2_mm.datasets.palette import Colour

from .class_names import Classes
from .large_images import RowReader
from .prediction import label_type

_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_GREY, _PNG_PALETTE = 0, 3
_BLOCK_PX = 512


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
    """Return how the name of the file ends: ``.tif`` of what lies somewhere, else ``.png``."""
    return '.tif' if image.georeference else '.png'


class PngStrips:
    """A PNG file of class numbers that is compressed as its rows come.

    Args:
        path: Of the file.
        size: Of the label map, (height, width).
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._chunk(b'IDAT', self._compressor.flush())
                self._chunk(b'IEND', b'')


class GeoTiffStrips:
    """A GeoTIFF of class numbers, in the place of the image.

    Args:
        path: Of the file.
        size: Of the label map, (height, width).
        dtype: ``uint8`` or ``uint16``.
        palette: Colours of the classes, which 8 bits have.
        georeference: See ``RowReader``.
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
        self._top = 0

    def write(self, labels: np.ndarray) -> None:
        """Append rows (h, W)."""
        from rasterio.windows import Window

        height, width = labels.shape
        self._dataset.write(labels, 1, window=Window(0, self._top, width, height))
        self._top += height

    def __enter__(self) -> GeoTiffStrips:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._dataset.close()
