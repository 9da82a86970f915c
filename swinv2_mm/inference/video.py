"""Read and write videos through OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from swinv2_mm.atomic_write import discard, publish
from swinv2_mm.datasets.image_files import image_limits
from swinv2_mm.errors import DataError, UserError

# FFmpeg's own messages would come between ours; and a file must not make it open others.
_FFMPEG_SETTINGS = {
    'OPENCV_FFMPEG_LOGLEVEL': '-8',
    'OPENCV_FFMPEG_CAPTURE_OPTIONS': 'protocol_whitelist;file',
}
_DEFAULT_RATE = 25.0  # frames per second, where a file does not say
# Some containers only estimate how many frames they hold.
_COUNT_TOLERANCE = 0.02


class VideoReader:
    """The frames of a video, one at a time.

    Attributes:
        rate: Frames per second.
        num_frames: As the file says; 0 if it does not.

    Raises:
        DataError: If the file is missing or not a video.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = os.fspath(path)
        # A pipe would be waited for.
        if not os.path.isfile(self._path):
            raise DataError(f'video {self._path} does not exist, or is no file')
        for name, value in _FFMPEG_SETTINGS.items():
            os.environ.setdefault(name, value)
        self._capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise DataError(f'video {self._path} cannot be read: truncated or not a video')
        width, height = (
            int(self._capture.get(side))
            for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        image_limits().check((width, height), name=f'video {self._path}')
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else _DEFAULT_RATE
        self.num_frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield frames (H, W, 3), BGR.

        Raises:
            DataError: After the last one, if the file should hold more.
        """
        count = 0
        try:
            while True:
                is_read, frame = self._capture.read()
                if not is_read:
                    break
                count += 1
                yield frame
        finally:
            self._capture.release()
        if count == 0 or count + 1 < self.num_frames * (1 - _COUNT_TOLERANCE):
            raise DataError(
                f'video {self._path} is broken or truncated: {count} of {self.num_frames} frames '
                'could be read'
            )


class VideoWriter:
    """Write an MP4 file atomically.

    Args:
        path: Ends in ``.mp4``.
        rate: Frames per second.
    """

    def __init__(self, path: Path, *, rate: float) -> None:
        self._path = path
        self._partial = path.with_name(f'.partial-{path.name}')
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, picture: np.ndarray) -> None:
        """Append a frame (H, W, 3), BGR; all must have one size.

        Raises:
            UserError: If the file cannot be written.
        """
        height, width = picture.shape[:2]
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter_fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(str(self._partial), code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise UserError(f'video {self._path} cannot be written')
        self._writer.write(picture)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        # What could be read of a truncated video is worth keeping.
        if error is None or isinstance(error, DataError):
            publish(self._partial, self._path)
        else:
            discard(self._partial)
