"""Predict for an image in tiles, in memory that is bounded whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData

from swinv2_mm.errors import UserError
from swinv2_mm.ordered_map import read_ahead

from .class_names import Classes
from .label_strips import LogitBlender
from .large_images import RowReader, open_rows
from .prediction import Prediction, class_shares, detection_record, label_type
from .run_lengths import ReducedMasks, encode_runs, mask_runs
from .tile_grid import TileGrid, Tiling
from .tile_merging import DetectionMerger, Detections

# Longer side of the image that is drawn on.
_REDUCED_PX = 4096


class StripWriter(Protocol):
    """Takes a label map from top to bottom."""

    def write(self, labels: np.ndarray) -> None:
        """Append rows (h, W)."""
        ...


@dataclass
class TiledPrediction:
    """The prediction for an image that went through the model in tiles.

    Attributes:
        source: What was given: a path or an array.
        size: Size of the image, (height, width).
        reduced: The same on the image at a fraction of its size: to draw.
        detections: Detections of a detector, sorted by score, in pixels of the image.
        label_map: Label map of a segmentor, (H, W), if it was not written strip by strip.
        counts: Pixels per class, of a segmentor.
    """

    source: Any
    size: tuple[int, int]
    reduced: Prediction
    detections: Detections | None = None
    label_map: np.ndarray | None = None
    counts: np.ndarray | None = None

    @property
    def classes(self) -> Classes:
        """Names and colours."""
        return self.reduced.classes

    def to_dict(self, *, score_threshold: float = 0.0) -> dict:
        """Convert the prediction to what JSON can hold, as ``Prediction.to_dict`` does."""
        height, width = self.size
        content: dict[str, Any] = {'width': width, 'height': height}
        if self.detections is None:
            return {**content, 'shares': class_shares(self.counts, self.classes)}
        return {**content, 'detections': list(self._records(self.detections, score_threshold))}

    def _records(self, found: Detections, score_threshold: float) -> Iterator[dict]:
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        for k, (box, score, label) in enumerate(rows):
            if score < score_threshold:
                return
            mask = None if found.masks is None else encode_runs(found.masks[k], size=self.size)
            yield detection_record(box, score, label, classes=self.classes, mask=mask)


def _stride(size: tuple[int, int]) -> int:
    """Return how many pixels of an image become one of the reduced image, on either side."""
    # A thin image keeps a row.
    return min(-(-max(size) // _REDUCED_PX), *size)


class _Reducer:
    """Reduce an image to a fraction of its size, strip by strip."""

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = size
        self.stride = _stride(size)
        self.image = np.empty((height // self.stride, width // self.stride, 3), np.uint8)
        self._waiting: list[np.ndarray] = []
        self._row = 0

    def add(self, strip: np.ndarray) -> None:
        """Append rows (h, W, 3)."""
        rows = np.concatenate([*self._waiting, strip])
        count = min(len(rows) // self.stride, len(self.image) - self._row)
        width = self.image.shape[1]
        used = rows[: count * self.stride, : width * self.stride]
        if count and width:
            self.image[self._row : self._row + count] = cv2.resize(
                used, (width, count), interpolation=cv2.INTER_AREA
            )
        self._row += count
        self._waiting = [rows[count * self.stride :].copy()]


def predict_in_tiles(
    source: Any,
    tiling: Tiling,
    *,
    task: str,
    classes: Classes,
    predict: Callable[[Iterable[np.ndarray]], Iterator[Prediction]],
    threshold: float | None = None,
    open_writer: Callable[[RowReader], AbstractContextManager[StripWriter]] | None = None,
) -> Prediction | TiledPrediction:
    """Predict for an image in tiles, or as a whole if it is no larger than one.

    The image is read in strips as high as a tile while the model works on the strip before.

    Args:
        source: A path, or an array (H, W, 3) of bytes, BGR.
        tiling: How it is cut.
        task: ``detection`` or ``segmentation``.
        classes: Names and colours.
        predict: Takes tiles (h, w, 3) and yields a prediction for each, segmentations with
            ``seg_logits``.
        threshold: See ``LogitBlender``.
        open_writer: Opens what takes the label map strip by strip; without it, the map is kept in
            memory.

    Raises:
        DataError: If the image cannot be read.
        UserError: If it is larger than a tile, and the task is none of these.
    """
    with open_rows(source) as image:
        if max(image.size) <= tiling.tile:
            (found,) = predict([np.ascontiguousarray(image.rows(0, image.size[0]))])
            found.sample.pop('seg_logits', None)
            return replace(found, source=source)
        if task == 'detection':
            return _detect(source, image, TileGrid(image.size, tiling), classes, predict)
        if task != 'segmentation':
            raise UserError(
                f'tiles are for detectors and segmentors: {task} takes an image as a whole'
            )
        with open_writer(image) if open_writer else nullcontext() as writer:
            labels = _Labels(image.size, classes=classes, writer=writer)
            grid = TileGrid(image.size, tiling)
            return _segment(source, image, grid, labels, predict, threshold)


def _detect(
    source: Any, image: RowReader, grid: TileGrid, classes: Classes, predict: Callable
) -> TiledPrediction:
    reducer, merger = _Reducer(image.size), DetectionMerger(image.size)
    places = ((rows, columns) for rows in grid.rows for columns in grid.columns)
    tiles = _tiles(image, grid, reducer)
    for (rows, columns), found in zip(places, predict(tiles), strict=True):
        merger.add(_placed(found, rows[0], columns[0], image.size[0]), rows=rows, columns=columns)
    found = merger.merge()
    boxes = found.boxes.float() / reducer.stride
    instances = InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
    if found.masks is not None:
        instances.masks = ReducedMasks(found.masks, size=image.size, stride=reducer.stride)
    sample = SimpleNamespace(pred_instances=instances)
    reduced = Prediction(source, reducer.image, sample, 'detection', classes)
    return TiledPrediction(source, image.size, reduced, detections=found)


def _segment(
    source: Any,
    image: RowReader,
    grid: TileGrid,
    labels: _Labels,
    predict: Callable,
    threshold: float | None,
) -> TiledPrediction:
    reducer = _Reducer(image.size)
    blender = LogitBlender(grid, on_strip=labels.add, dtype=labels.dtype, threshold=threshold)
    for found in predict(_tiles(image, grid, reducer)):
        blender.add(found.sample.seg_logits.data)
    sample = SimpleNamespace(pred_sem_seg=SimpleNamespace(data=labels.reduced()))
    reduced = Prediction(source, reducer.image, sample, 'segmentation', labels.classes)
    return TiledPrediction(
        source, image.size, reduced, label_map=labels.whole, counts=labels.counts
    )


def _tiles(image: RowReader, grid: TileGrid, reducer: _Reducer) -> Iterator[np.ndarray]:
    """Yield the tiles; each row of the image is read once, and goes to the reducer."""
    for strip in read_ahead(_strips(image, grid, reducer), num_ahead=1):
        for left, right in grid.columns:
            yield np.ascontiguousarray(strip[:, left:right])


def _strips(image: RowReader, grid: TileGrid, reducer: _Reducer) -> Iterator[np.ndarray]:
    strip, end = np.empty((0, image.size[1], 3), np.uint8), 0
    for top, bottom in grid.rows:
        new = image.rows(max(top, end), bottom)
        reducer.add(new)
        kept = strip[len(strip) - max(0, end - top) :]
        strip = np.concatenate([kept, new]) if len(kept) else new
        end = bottom
        yield strip


def _placed(found: Prediction, top: int, left: int, height: int) -> Detections:
    """Return the detections of a tile in pixels of the image."""
    instances = found.sample.pred_instances
    boxes = instances.bboxes.double() + torch.tensor([left, top, left, top])
    masks = None
    if 'masks' in instances:
        masks = [
            mask_runs(np.asarray(mask, bool), left=left, top=top, height=height)
            for mask in instances.masks
        ]
    return Detections(boxes, instances.scores.float(), instances.labels.long(), masks)


class _Labels:
    """Hand the strips of a label map on, count classes, and keep every n-th pixel to draw."""

    def __init__(
        self, size: tuple[int, int], *, classes: Classes, writer: StripWriter | None
    ) -> None:
        self.classes, self.dtype = classes, label_type(classes)
        self.whole = np.empty(size, self.dtype) if writer is None else None
        self.counts = np.zeros(len(classes.names), np.int64)
        self._stride, self._writer = _stride(size), writer
        self._reduced_size = size[0] // self._stride, size[1] // self._stride
        self._top = 0
        self._samples: list[np.ndarray] = []

    def add(self, strip: np.ndarray) -> None:
        """Take the next rows (h, W)."""
        if self._writer is None:
            self.whole[self._top : self._top + len(strip)] = strip
        else:
            self._writer.write(strip)
        for row in strip:
            self.counts += np.bincount(row, minlength=len(self.counts))
        stride, middle = self._stride, self._stride // 2
        self._samples.append(strip[(middle - self._top) % stride :: stride, middle::stride].copy())
        self._top += len(strip)

    def reduced(self) -> torch.Tensor:
        """Return the label map of the reduced image, (1, h, w)."""
        height, width = self._reduced_size
        labels = np.concatenate(self._samples)[:height, :width]
        return torch.from_numpy(labels.astype(np.int64))[None]
