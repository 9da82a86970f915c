"""Define the event handlers of the page: upload, settings, click."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from swinv2_mm.datasets.image_files import ImageLimits, read_image
from swinv2_mm.errors import UserError
from swinv2_mm.inference.drawing import picture_scale
from swinv2_mm.inference.output_folder import encode_jpeg

from .model_shelf import ModelShelf
from .offline_gradio import gradio as gr

# Gradio does not show what was made with ``visible=False`` and is made visible later.
HIDDEN = 'hidden'


def _explained(function: Callable) -> Callable:
    """Show errors of the user on the page; log all others and show that one occurred."""

    @wraps(function)
    def explain(*args: Any) -> Any:
        try:
            return function(*args)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            traceback.print_exc()
            raise gr.Error('the model failed on this image', print_exception=False) from error

    return explain


class Callbacks:
    """Event handlers of the page, as functions of the values of its fields.

    Args:
        shelf: The models.
        limits: Of images; checked before they are decoded.

    Attributes:
        predict: Takes the file, model, window and score threshold.
        look: Takes the file, model, window and the click.
    """

    def __init__(self, shelf: ModelShelf, limits: ImageLimits) -> None:
        self._shelf = shelf
        self._limits = limits
        self.predict = _explained(self._predict)
        self.look = _explained(self._look)

    def threshold_visibility(self, number: int) -> bool | str:
        """Return what Gradio's ``visible`` takes: scores are thresholded for detectors only."""
        is_detector = self._shelf.choices[number].task == 'detection'
        return True if is_detector else HIDDEN

    def _predict(
        self, path: str | None, number: int, window_size: int | None, threshold: float
    ) -> tuple:
        gone = gr.update(visible=HIDDEN, value=None)
        if path is None:
            empty = gr.update(value=None, interactive=False)
            return 'The result will appear here.', None, gone, None, empty, empty, None
        image = self._read(path)
        start = time.monotonic()
        prediction, drawn = self._shelf.predict(
            number, image, window_size=window_size or None, score_threshold=threshold
        )
        seconds = time.monotonic() - start
        content = prediction.to_dict(score_threshold=threshold)
        stem = Path(path).stem
        picture = _keep(encode_jpeg(drawn), f'{stem}-predicted.jpg')
        file = _keep(json.dumps(content, indent=2).encode(), f'{stem}-predicted.json')
        headers = ['Class', 'Share of the area' if 'shares' in content else 'Score']
        table = gr.update(value=_rows(content), headers=headers)
        size = f'{content["width"]} x {content["height"]} pixels'
        return (
            f'**{_summary(content)}** {size}, {seconds:.2f} s.',
            picture,
            gone,
            table,
            gr.update(value=picture, interactive=True),
            gr.update(value=file, interactive=True),
            content,
        )

    def _look(
        self, path: str | None, number: int, window_size: int | None, event: gr.SelectData
    ) -> tuple:
        if path is None:
            raise UserError('choose an image first')
        image = self._read(path)
        scale = picture_scale(image.shape[:2])
        column, row = (
            min(int(at / scale), side - 1)
            for at, side in zip(event.index, image.shape[1::-1], strict=True)
        )
        drawn = self._shelf.attention(
            number, image, window_size=window_size or None, pixel=(row, column)
        )
        shown = gr.update(value=_keep(drawn, 'attention.png'), visible=True)
        return (
            f'**Attention of pixel {column}, {row}** over its window, mean of the heads, in the '
            'last two blocks of each stage: below the prediction.',
            shown,
        )

    def _read(self, path: str) -> np.ndarray:
        try:
            return read_image(path, limits=self._limits)
        except UserError as error:
            # Where Gradio keeps it is nobody's business.
            raise UserError(str(error).replace(path, Path(path).name)) from error


def _keep(content: bytes, name: str) -> str:
    folder = gr.utils.get_upload_folder()
    return gr.processing_utils.save_bytes_to_cache(content, name, folder)


def _rows(content: dict) -> list[list[str]]:
    if 'shares' in content:
        rows = content['shares'].items()
    else:
        rows = [(found['class'], found['score']) for found in _found(content)]
    return [[name, f'{100 * value:.1f} %'] for name, value in rows]


def _found(content: dict) -> list[dict]:
    return content['detections'] if 'detections' in content else content['best']


def _summary(content: dict) -> str:
    if 'shares' in content:
        return f'Classes: {len(content["shares"])}.'
    if 'detections' in content:
        return f'Objects: {len(content["detections"])}.'
    return f'Best class: {content["best"][0]["class"]}.'
