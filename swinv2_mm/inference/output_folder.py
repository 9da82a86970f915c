"""Write predictions to a folder so that an interrupted run can be resumed."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from swinv2_mm.atomic_write import atomic_path, atomic_write, discard
from swinv2_mm.errors import UserError

from .class_names import Classes
from .job import Job
from .label_map_files import label_map_suffix, open_label_map
from .large_images import RowReader
from .prediction import Prediction
from .record_index import RecordIndex
from .sources import Source
from .tiles import StripWriter, TiledPrediction

RECORDS = 'predictions.jsonl'
RUN = 'run.json'
_FOLDERS = ('pictures', 'label_maps', 'videos')
# Folder that several processes write to until their records are merged.
_PARTS = '.parts'
_LIST = 'list.jsonl'
_POLL_S = 0.1
_JPEG_SIDE_PX = 65500  # of libjpeg
_JPEG_QUALITY = 92


def result_folders(root: Path) -> frozenset[str]:
    """Return the real paths of the folders in an output folder that predictions are written to."""
    return frozenset(os.path.realpath(root / name) for name in _FOLDERS)


class OutputFolder:
    """Output folder: visualizations, label maps and one line of JSON per image.

    The line is written last: an image that has one is done. ``run.json`` records what made the
    files, and a run can only be resumed by the same, with any number of processes.

        run.json
        predictions.jsonl         file, name, width, height, and what Prediction.to_dict gives
        pictures/NAME.jpg
        label_maps/NAME.png       class numbers, in the colours of the classes; NAME.tif for a
                                  GeoTIFF in tiles
        videos/NAME.mp4           and NAME.jsonl, a line per frame
        .parts/                   of several processes: the list, and the lines of each

    Args:
        root: The folder.
        run: What the results depend on.
        resume: Whether to go on in a folder that has results.
        job: The processes that write to it.

    Raises:
        UserError: If there are results and they are not to be, or cannot be, continued.
    """

    def __init__(self, root: Path, *, run: dict, resume: bool, job: Job | None = None) -> None:
        self.root, self._job = root, job or Job()
        self._parts = root / _PARTS
        is_shared = self._job.size > 1
        own = self._parts / f'records-{self._job.rank}.jsonl' if is_shared else root / RECORDS
        self._list = self._parts / _LIST if is_shared else Path(os.devnull)
        try:
            if self._job.rank == 0:
                self._index = RecordIndex()
                self._needs_merge = is_shared
                root.mkdir(parents=True, exist_ok=True)
                self._open(run, resume)
                if is_shared:
                    self._parts.mkdir(exist_ok=True)
                    self._list.write_bytes(b'')
                self._job.publish('folder')
            self._job.wait_for('folder')
            own.touch()
            os.truncate(own, sum(len(line) for line, _ in _complete_lines(own)))
            self._records = own.open('a', encoding='utf-8')
        except OSError as error:
            raise UserError(f'cannot write to {root}: {error.strerror}') from error

    def _open(self, run: dict, resume: bool) -> None:
        has_results = (self.root / RECORDS).exists() or self._parts.exists()
        if not has_results:
            if others := [name for name in _FOLDERS if (self.root / name).exists()]:
                raise UserError(
                    f'{self.root / others[0]} is not of predictions, and files in it could be '
                    'overwritten: --out names another folder'
                )
            atomic_write(self.root / RUN, json.dumps(run, indent=2) + '\n')
            return
        if not resume:
            raise UserError(f'{self.root} holds results; --resume goes on, --out names another')
        earlier = _read_json(self.root / RUN)
        if differing := [key for key in run if earlier.get(key) != run[key]]:
            names = ', '.join(differing)
            raise UserError(f'{self.root} was made with another {names}: not to be resumed')
        self._needs_merge = True
        for unfinished in (f'.{RECORDS}.*', 'label_maps/**/.*.part'):
            for path in self.root.glob(unfinished):
                discard(path)
        for part in self._record_files():
            for _, record in _complete_lines(part):
                self._index.add_done(record['file'], record['name'])

    def _record_files(self) -> list[Path]:
        files = [self.root / RECORDS, *sorted(self._parts.glob('records-*.jsonl'))]
        return [path for path in files if path.exists()]

    def list_files(self, sources: Iterable[Source]) -> Iterator[tuple[Source, bool]]:
        """List files, for all processes; only in the first one.

        Yields:
            Each file once, under the name of what is written for it, which nothing else in the
            folder has (``a``, ``a-2``, ...), and whether it is done.
        """
        # Line-buffered, so that others can read each line as it is written.
        with self._list.open('w', buffering=1, encoding='utf-8') as file:
            try:
                for source in sources:
                    if (listed := self._index.enlist(source)) is not None:
                        name, is_done = listed
                        file.write(json.dumps([source.path, name, is_done]) + '\n')
                        yield Source(source.path, name), is_done
            finally:
                file.write('null\n')

    def follow_list(self) -> Iterator[tuple[Source, bool]]:
        """Yield what the first process lists, as it does."""
        with self._list.open('rb') as file:
            while True:
                line = file.readline()
                if not line.endswith(b'\n'):
                    file.seek(-len(line), os.SEEK_CUR)
                    time.sleep(_POLL_S)
                    continue
                if (entry := json.loads(line)) is None:
                    return
                path, name, is_done = entry
                yield Source(path, name), is_done

    @contextmanager
    def label_map_writer(
        self, image: RowReader, *, source: Source, classes: Classes
    ) -> Iterator[StripWriter]:
        """Yield what takes the label map of a large image, strip by strip."""
        path = self.root / 'label_maps' / f'{source.name}{label_map_suffix(image)}'
        with atomic_path(path) as part, open_label_map(part, image, classes=classes) as writer:
            yield writer

    def write(
        self, prediction: Prediction | TiledPrediction, *, picture: np.ndarray | None
    ) -> dict[str, Any]:
        """Write the files of an image, and return its record; from any thread."""
        name = prediction.source.name
        if picture is not None:
            self.write_bytes(f'pictures/{name}.jpg', encode_jpeg(picture))
        if (label_map := prediction.label_map) is not None:
            colours = prediction.classes.palette
            self.write_bytes(f'label_maps/{name}.png', encode_label_map(label_map, colours))
        return prediction.to_dict()

    def add_record(self, source: Source, content: dict[str, Any]) -> None:
        """Record a file as done."""
        record = {'file': source.path, 'name': source.name, **content}
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

    def merge(self) -> None:
        """Put the records of all processes and runs in the order of the list.

        In the first process, when all others have closed the folder.
        """
        if not self._needs_merge:
            return
        parts = self._record_files()
        places = (
            (record['file'], number, start)
            for number, part in enumerate(parts)
            for start, record in _places(part)
        )
        with atomic_path(self.root / RECORDS) as path, ExitStack() as stack:
            files = [stack.enter_context(part.open('rb')) for part in parts]
            with path.open('wb') as merged:
                for number, start in self._index.in_order(places):
                    files[number].seek(start)
                    merged.write(files[number].readline())
        shutil.rmtree(self._parts, ignore_errors=True)


def _complete_lines(path: Path) -> Iterator[tuple[bytes, dict]]:
    """Yield lines and their content, up to one that an interrupted run left incomplete."""
    with path.open('rb') as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b'\n'):
                return
            yield line, record


def _places(path: Path) -> Iterator[tuple[int, dict]]:
    start = 0
    for line, record in _complete_lines(path):
        yield start, record
        start += len(line)


def encode_jpeg(picture: np.ndarray) -> bytes:
    """Encode an image (H, W, 3), BGR, as JPEG, which takes no side beyond 65500 pixels."""
    longest = max(picture.shape[:2])
    if longest > _JPEG_SIDE_PX:
        height, width = (max(side * _JPEG_SIDE_PX // longest, 1) for side in picture.shape[:2])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
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
