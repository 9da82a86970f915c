"""Write predictions to a folder so that an interrupted run can be resumed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.errors import UserError
from swinv2_mm.output_names import OutputNames

from .prediction import Prediction
from .sources import Source

RECORDS = 'predictions.jsonl'
RUN = 'run.json'
_JPEG_QUALITY = 92


class OutputFolder:
    """Output folder: visualizations, label maps and one line of JSON per image.

    The line is written last: an image that has one is done. ``run.json`` records what made the
    files, and a run can only be resumed by the same.

        run.json
        predictions.jsonl         file, name, width, height, and what Prediction.to_dict gives
        pictures/NAME.jpg
        label_maps/NAME.png       class numbers, in the colours of the classes
        videos/NAME.mp4           and NAME.jsonl, a line per frame

    The names of what is done are remembered: about 200 bytes an image.

    Args:
        root: The folder.
        run: What the results depend on.
        resume: Whether to go on in a folder that has results.

    Raises:
        UserError: If there are results and they are not to be, or cannot be, continued.
    """

    def __init__(self, root: Path, *, run: dict, resume: bool) -> None:
        self.root = root
        self._done: set[str] = set()
        self._names = OutputNames()
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._open(run, resume)
        except OSError as error:
            raise UserError(f'cannot write to {root}: {error.strerror}') from error

    def _open(self, run: dict, resume: bool) -> None:
        path = self.root / RECORDS
        if path.exists() and not resume:
            raise UserError(f'{self.root} holds results; --resume goes on, --out names another')
        if path.exists():
            earlier = _read_json(self.root / RUN)
            if differing := [key for key in run if earlier.get(key) != run[key]]:
                names = ', '.join(differing)
                raise UserError(f'{self.root} was made with another {names}: not to be resumed')
            self._keep_complete_lines(path)
        else:
            atomic_write(self.root / RUN, json.dumps(run, indent=2) + '\n')
        self._records = path.open('a', encoding='utf-8')

    def _keep_complete_lines(self, path: Path) -> None:
        """Truncate the line that an interrupted run left incomplete."""
        complete = 0
        with path.open('rb') as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b'\n'):
                    break
                complete += len(line)
                self._done.add(record['file'])
                self._names.add(record['name'])
        os.truncate(path, complete)

    def is_done(self, source: Source) -> bool:
        """Return whether an earlier run finished this file."""
        return source.path in self._done

    def reserve_name(self, source: Source) -> str:
        """Return a name that nothing else in the folder has: ``a``, ``a-2``, ..."""
        return self._names.reserve(source.name)

    def add(self, prediction: Prediction, *, picture: np.ndarray | None) -> None:
        """Write the results of one image."""
        name = self.reserve_name(prediction.source)
        if picture is not None:
            self.write_bytes(f'pictures/{name}.jpg', encode_jpeg(picture))
        if (label_map := prediction.label_map) is not None:
            colours = prediction.classes.palette
            self.write_bytes(f'label_maps/{name}.png', encode_label_map(label_map, colours))
        self.add_record(prediction.source, name, prediction.to_dict())

    def add_record(self, source: Source, name: str, content: dict[str, Any]) -> None:
        """Record a file as done."""
        record = {'file': source.path, 'name': name, **content}
        self._records.write(json.dumps(record) + '\n')
        self._records.flush()

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of the folder."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def records(self) -> Iterator[dict]:
        """Read back the lines, one at a time."""
        with (self.root / RECORDS).open(encoding='utf-8') as file:
            yield from map(json.loads, file)

    def close(self) -> None:
        """Finish writing."""
        self._records.close()


def encode_jpeg(picture: np.ndarray) -> bytes:
    """Encode an image (H, W, 3), BGR, as JPEG."""
    _, content = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return content.tobytes()


def encode_label_map(label_map: np.ndarray, palette: tuple) -> bytes:
    """Compress class numbers (H, W) to PNG; with 256 classes at most, viewers show the colours."""
    image = Image.fromarray(label_map)
    if label_map.dtype == np.uint8:
        image.putpalette([channel for colour in palette for channel in colour])
    file = io.BytesIO()
    image.save(file, format='PNG')
    return file.getvalue()


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = None
    return content if isinstance(content, dict) else {}
