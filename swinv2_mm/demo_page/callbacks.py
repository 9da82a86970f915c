"""Define the event handlers of the page: upload, examples, settings, click, several images."""

from __future__ import annotations

import io
import json
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from swinv2_mm.datasets.image_files import ImageLimits, read_image
from swinv2_mm.errors import UserError
from swinv2_mm.inference.drawing import picture_scale
from swinv2_mm.inference.output_folder import OutputFolder, encode_jpeg
from swinv2_mm.inference.sources import Source
from swinv2_mm.output_names import OutputNames

from .code_lines import Request
from .examples import example_images
from .model_shelf import ModelShelf
from .offline_gradio import gradio as gr

MOST_IMAGES = 50
_THUMBNAIL_PX = 240
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
        limits: Limits on images, checked before they are decoded.

    Attributes:
        predict: Takes the file, model, window and score threshold.
        predict_all: The same for several files.
        look: Takes the file, model, window and the click.
        code: Takes what ``predict`` does; returns the lines in Python and the command.
        thumbnails: Takes the model; returns its examples, made small.
        example: Takes the model and the click; returns the file.
    """

    def __init__(self, shelf: ModelShelf, limits: ImageLimits) -> None:
        self._shelf = shelf
        self._limits = limits
        self._examples: dict[int, dict[str, bytes]] = {}
        self.predict = _explained(self._predict)
        self.predict_all = _explained(self._predict_all)
        self.look = _explained(self._look)
        self.code = _explained(self._code)
        self.thumbnails = _explained(self._thumbnails)
        self.example = _explained(self._example)

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
        size = f'{content["width"]} x {content["height"]} pixels'
        return (
            f'**{_summary(content)}** {size}, {seconds:.2f} s.',
            picture,
            gone,
            _table(content),
            gr.update(value=picture, interactive=True),
            gr.update(value=file, interactive=True),
            content,
        )

    def _predict_all(
        self,
        paths: Sequence[str] | None,
        number: int,
        window_size: int | None,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  how Gradio passes it
    ) -> tuple:
        if not paths:
            raise UserError('choose images first')
        if len(paths) > MOST_IMAGES:
            raise UserError(f'{len(paths)} images: at most {MOST_IMAGES} go together')
        shown, failed = [], []
        with TemporaryDirectory() as place:
            run = {**vars(self._shelf.choices[number]), 'window_size': window_size or None}
            output, names = OutputFolder(Path(place), run=run, resume=False), OutputNames()
            for count, path in enumerate(paths):
                progress((count, len(paths)), unit='images')
                name = Path(path).name
                try:
                    image = self._read(path)
                except UserError as error:
                    failed.append(str(error))
                    continue
                prediction, drawn = self._shelf.predict(
                    number, image, window_size=window_size or None, score_threshold=threshold
                )
                source = Source(name, names.reserve(Path(name).stem))
                written = output.write(replace(prediction, source=source), picture=drawn)
                output.add_record(source, written)
                content = prediction.to_dict(score_threshold=threshold)
                picture = _keep(encode_jpeg(drawn), f'{Path(name).stem}-predicted.jpg')
                shown.append((picture, f'{name}: {_summary(content)}'))
            output.close()
            zipped = _keep(_zipped(Path(place)), 'predictions.zip')
        status = f'**Images: {len(shown)}.**' + ''.join(f'\n- {reason}' for reason in failed)
        return status, shown, gr.update(value=zipped, interactive=bool(shown))

    def _code(
        self, path: str | None, number: int, window_size: int | None, threshold: float
    ) -> tuple[str, str]:
        request = Request(
            choice=self._shelf.choices[number],
            image=Path(path).name if path else 'IMAGE',
            window_size=window_size or None,
            score_threshold=threshold,
            device=self._shelf.device,
        )
        return request.python(), request.command()

    def _thumbnails(self, number: int) -> Any:
        files = [
            _keep(content, f'{Path(path).stem}.jpg')
            for path, content in self._examples_of(number).items()
        ]
        return gr.update(value=files, visible=True if files else HIDDEN, selected_index=None)

    def _example(self, number: int, event: gr.SelectData) -> str:
        path = Path(list(self._examples_of(number))[event.index])
        return _keep(path.read_bytes(), path.name)

    def _examples_of(self, number: int) -> dict[str, bytes]:
        """Return the examples of a model with their thumbnails; those too large are left out."""
        if number not in self._examples:
            found = {}
            for path in example_images(self._shelf.choices[number].config):
                try:
                    found[path] = _thumbnail(self._read(path))
                except UserError:
                    continue
            self._examples[number] = found
        return self._examples[number]

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
            # The path of Gradio's copy says nothing to the user.
            raise UserError(str(error).replace(path, Path(path).name)) from error


def _keep(content: bytes, name: str) -> str:
    folder = gr.utils.get_upload_folder()
    return gr.processing_utils.save_bytes_to_cache(content, name, folder)


def _thumbnail(image: np.ndarray) -> bytes:
    scale = _THUMBNAIL_PX / max(image.shape[:2])
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    return encode_jpeg(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _zipped(folder: Path) -> bytes:
    """Return all files of a folder as a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob('*') if path.is_file()):
            archive.write(path, path.relative_to(folder))
    return file.getvalue()


def _table(content: dict) -> str:
    """Return classes with their scores or shares as an HTML table."""
    if 'shares' in content:
        head, rows = 'Share of the area', list(content['shares'].items())
    else:
        head, rows = 'Score', [(found['class'], found['score']) for found in _found(content)]
    lines = (
        f'<tr><td>{escape(name)}</td><td>{100 * value:.1f} %</td></tr>' for name, value in rows
    )
    return f'<table><tr><th>Class</th><th>{head}</th></tr>{"".join(lines)}</table>'


def _found(content: dict) -> list[dict]:
    return content['detections'] if 'detections' in content else content['best']


def _summary(content: dict) -> str:
    if 'shares' in content:
        return f'Classes: {len(content["shares"])}.'
    if 'detections' in content:
        return f'Objects: {len(content["detections"])}.'
    return f'Best class: {content["best"][0]["class"]}.'
