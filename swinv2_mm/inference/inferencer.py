"""Predict with detectors, segmentors and classifiers behind one interface."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.file import as_config
from swinv2_mm.datasets.files import shown
from swinv2_mm.engine.trained_model import load_trained_model, set_window_size
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.libraries import library_of
from swinv2_mm.ordered_map import map_in_threads
from swinv2_mm.runtime.files import is_exported
from swinv2_mm.runtime.model import load_file_model
from swinv2_mm.tta.model import wrap_for_tta

from .batch_prediction import BatchPredictor
from .batches import in_batches
from .class_names import find_classes
from .drawing import draw_prediction
from .label_strips import sigmoid_threshold
from .large_images import RowReader
from .prediction import Prediction
from .preparation import ImageInput, LoadedInput, build_preparation, prepare_config
from .tile_grid import Tiling
from .tiles import StripWriter, TiledPrediction, predict_in_tiles

# Threads that read images while the model works.
_NUM_READERS = 2


class SwinV2Inferencer:
    """Predict with a trained model of a config.

    Images go through the test pipeline of the config and the model's ``test_step``. The
    libraries' own inferencers are not used: they insist on a loader that fills broken files with
    grey, keep all results in memory, and read weights by running what is in them.

    Example::

        inferencer = SwinV2Inferencer('config.py', 'weights.pth', window_size=16)
        for prediction in inferencer(['a.jpg', 'b.png']):
            print(prediction.to_dict())
            image = inferencer.draw(prediction)

    Args:
        config: A config file, or a config.
        weights: See ``load_trained_model``; or a file that ``export`` wrote, which runs on the CPU.
        device: Such as ``cuda:1``; ``None`` takes a GPU if there is one.
        window_size: Another window than the config's, in tokens: one for all stages or one per
            stage, each N or (h, w).
        use_tta: Merge predictions of several scales and flips, by the entry ``tta`` of the config.
        options: ``key=value`` changes of the config, as on the command line.

    Raises:
        UserError: If the config or the weights do not fit what is asked.
    """

    def __init__(
        self,
        config: str | Path | Config,
        weights: str | Path,
        *,
        device: str | None = None,
        window_size: int | Sequence | None = None,
        use_tta: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        self.cfg = as_config(config, options)
        self.task = library_of(self.cfg, purpose='inference').task
        original = self.cfg.copy()
        prepare_config(self.cfg)
        if is_exported(weights):
            if window_size is not None or use_tta:
                raise UserError(
                    f'{weights}: its windows and its views are fixed in an exported file'
                )
            self.model = load_file_model(self.cfg, weights)
            meta = self.model.file.metadata
        else:
            self.model, meta = load_trained_model(self.cfg, weights, device=device or get_device())
        self.classes = find_classes(original, checkpoint_meta=meta, model=self.model)
        if window_size is not None:
            set_window_size(self.model, window_size)
        if use_tta:
            self.model = wrap_for_tta(self.model, self.cfg)
        self._prepare = build_preparation(self.cfg)
        self._predict = BatchPredictor(
            self.model, scope=self.cfg.default_scope, task=self.task, classes=self.classes
        )

    def __call__(
        self,
        images: Iterable[ImageInput] | ImageInput,
        *,
        batch_size: int = 1,
        tile: int | None = None,
        overlap: int | None = None,
        on_error: Callable[[Any, str], None] | None = None,
    ) -> Iterator[Prediction | TiledPrediction]:
        """Predict for images one after another; memory does not grow with their number.

        Args:
            images: Paths or arrays (H, W, 3) of bytes, BGR; any iterable, read as it is needed.
            batch_size: Most images, or tiles, that go through the model together. Only those of
                one size do: padding them to each other would change what a model sees. They are
                looked for among the next ``4 * batch_size`` images.
            tile: Side in pixels of tiles that larger images go through the model in; ``None``
                takes every image whole.
            overlap: Least overlap of tiles in pixels; default a quarter of the tile.
            on_error: Called with an image that cannot be read, is too large for the memory, or that
                the model fails on, and the reason; the others go on. Without it the first one
                raises.

        Yields:
            Predictions in the order of the images, without those that failed; a
            ``TiledPrediction`` for an image that is larger than a tile.

        Raises:
            DataError: See ``on_error``.
        """
        if batch_size < 1:
            raise UserError(f'batch size must be positive, got {batch_size}')
        if overlap is not None and tile is None:
            raise UserError('overlap is that of tiles: it needs a tile')
        if not isinstance(images, Iterable) or isinstance(images, (str, bytes)):
            images = [images]
        elif hasattr(images, 'ndim') and images.ndim == 3:
            images = [images]
        if tile is None:
            yield from self._stream(images, batch_size=batch_size, on_error=on_error)
            return
        tiling = Tiling.of(tile, overlap)
        for image in images:
            try:
                found = self.predict_in_tiles(image, tiling, batch_size=batch_size)
            except DataError as error:
                if on_error is None:
                    raise
                on_error(image, str(error))
            else:
                yield found

    def predict_in_tiles(
        self,
        image: ImageInput,
        tiling: Tiling,
        *,
        batch_size: int = 1,
        open_writer: Callable[[RowReader], AbstractContextManager[StripWriter]] | None = None,
    ) -> Prediction | TiledPrediction:
        """Predict for one image in tiles.

        Args:
            image: A path or an array (H, W, 3) of bytes, BGR.
            tiling: How it is cut.
            batch_size: Most tiles that go through the model together.
            open_writer: Opens what takes the label map of a segmentor strip by strip; without it,
                the map is in the prediction.

        Raises:
            DataError: If the image cannot be read, or a tile is too large for the memory.
            UserError: If the model takes images as a whole.
        """

        def fail(_: Any, reason: str) -> None:
            name = 'an array' if isinstance(image, np.ndarray) else f'image {shown(image)}'
            raise DataError(f'{name}, in tiles: {reason}')

        return predict_in_tiles(
            image,
            tiling,
            task=self.task,
            classes=self.classes,
            predict=partial(self._stream, batch_size=batch_size, on_error=fail, keeps_logits=True),
            threshold=sigmoid_threshold(self.model),
            open_writer=open_writer,
        )

    def _stream(
        self,
        images: Iterable[ImageInput],
        *,
        batch_size: int,
        on_error: Callable[[Any, str], None] | None = None,
        keeps_logits: bool = False,
    ) -> Iterator[Prediction]:
        """Read images, and predict for them in batches."""
        inputs = self._read_ahead(images, on_error=on_error, num_ahead=batch_size)
        settings = {'is_patient': on_error is not None, 'keeps_logits': keeps_logits}
        yield from in_batches(
            inputs,
            lambda batch: self._predict(batch, on_error, **settings),
            batch_size=batch_size,
        )

    def draw(
        self, prediction: Prediction | TiledPrediction, *, score_threshold: float = 0.3
    ) -> Any:
        """Draw a prediction on its image, or on the reduced one; see ``draw_prediction``."""
        if isinstance(prediction, TiledPrediction):
            prediction = prediction.reduced
        return draw_prediction(prediction, score_threshold=score_threshold)

    def prepare(self, image: ImageInput, number: int = 0) -> LoadedInput:
        """Read an image and run the test pipeline on it.

        Raises:
            DataError: If it cannot be used.
        """
        return self._prepare(image, number)

    def _read_ahead(
        self, images: Iterable[ImageInput], *, on_error: Callable | None, num_ahead: int
    ) -> Iterator[LoadedInput]:
        """Read and prepare images in threads, a few at a time, in order."""
        numbered = zip(images, itertools.count(), strict=False)
        for (image, _), future in map_in_threads(
            lambda item: self._prepare(*item),
            numbered,
            num_threads=_NUM_READERS,
            num_ahead=num_ahead,
        ):
            try:
                yield future.result()
            except DataError as error:
                if on_error is None:
                    raise
                on_error(image, str(error))

    def predict(
        self, batch: list[LoadedInput], *, on_error: Callable[[Any, str], None] | None = None
    ) -> Iterator[Prediction]:
        """Predict for images that ``prepare`` has read, in one step of the model.

        Args:
            batch: Inputs of one shape.
            on_error: Called with an image that is too large for the memory, and the reason.

        Yields:
            Predictions in the order of the batch, without those that failed.

        Raises:
            DataError: See ``on_error``.
        """
        found = self._predict(batch, on_error, is_patient=False)
        yield from (prediction for prediction in found if prediction is not None)
