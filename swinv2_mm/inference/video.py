"""Read and write videos through FFmpeg (PyAV)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from swinv2_mm.atomic_write import discard, publish
from swinv2_mm.datasets.files import shown
from swinv2_mm.datasets.image_files import image_limits
from swinv2_mm.errors import DataError, UserError

from .sound import LOCAL_FILES, SoundCopy

_DEFAULT_RATE = Fraction(25)  # frames per second, where a file does not say
# Some containers only estimate how many frames they hold.
_COUNT_TOLERANCE = 0.02
# Time base of written videos: times of any frame rate, also one that varies, are multiples of it.
_TIME_BASE = Fraction(1, 90_000)
# x264: near what the eye cannot tell from the original, at a fraction of the time of a model.
_QUALITY = {'crf': '20', 'preset': 'veryfast'}
_COLOURS = 1  # ITU-R BT.709, in the numbering of FFmpeg
# Flags of FFmpeg's swscale: bicubic, exact rounding, full chroma. Grey stays grey.
_EXACT = 0x4 | 0x40000 | 0x2000


def _av() -> ModuleType:
    """Import PyAV.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(f"videos need PyAV: pip install 'av>=14' ({error})") from error
    # FFmpeg's own messages would come between ours.
    av.logging.set_level(None)
    return av


class VideoReader:
    """The frames of a video, one at a time, turned upright.

    Attributes:
        path: The file.
        rate: Frames per second, on average.
        num_frames: As the file says; 0 if it does not.
        times: Times, in seconds, of the frames that were read; who uses a frame removes its time.

    Raises:
        DataError: If the file is missing or not a video.
        UserError: If PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._av = _av()
        self.path = os.fspath(path)
        # Opening a pipe would block.
        if not os.path.isfile(self.path):
            raise DataError(f'video {shown(self.path)} does not exist, or is no file')
        try:
            self._container = self._av.open(self.path, options=LOCAL_FILES)
            self._stream = self._container.streams.best('video')
            size = self._stream.codec_context.width, self._stream.codec_context.height
        except (self._av.error.FFmpegError, AttributeError):
            # No container, no stream, or one that FFmpeg cannot decode and gives no context.
            raise DataError(
                f'video {shown(self.path)} cannot be read: truncated or not a video'
            ) from None
        image_limits().check(size, name=f'video {shown(self.path)}')
        self._stream.thread_type = 'AUTO'
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        is_sane = 0 < rate < 1000
        self.rate = Fraction(rate).limit_denominator(1001) if is_sane else _DEFAULT_RATE
        self.num_frames = max(0, self._stream.frames)
        # Matroska and WebM count no frames.
        self._seconds = _seconds(self._stream.metadata.get('DURATION', ''))
        self.times: deque[float] = deque()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield frames (H, W, 3), BGR.

        Raises:
            DataError: After the last one, if the file should hold more.
        """
        count, time, end = 0, 0.0, 0.0
        try:
            for frame in self._decoded():
                # Where a file has no times, or one that goes back, frames follow at its rate.
                expected = time + 1 / float(self.rate) if count else 0.0
                time = frame.time if frame.time is not None else expected
                self.times.append(time)
                count += 1
                end = time + max(1 / self.rate, (frame.duration or 0) * (frame.time_base or 0))
                picture = frame.to_ndarray(format='bgr24', interpolation=_EXACT)
                yield np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90) % 4))
        finally:
            self._container.close()
        share = 1 - _COUNT_TOLERANCE
        is_short = count + 1 < self.num_frames * share
        if count == 0 or is_short or end + 1 / self.rate < self._seconds * share:
            read = (
                f'{count} of {self.num_frames} frames'
                if self.num_frames
                else f'{end:.2f} of {self._seconds:.2f} s'
            )
            raise DataError(
                f'video {shown(self.path)} is broken or truncated: {read} could be read'
            )

    def _decoded(self) -> Iterator[Any]:
        """Yield decoded frames; what is broken is left out."""
        broken = self._av.error.FFmpegError
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, broken):
                # The second: the end of a truncated file.
                return
            try:
                frames = packet.decode()
            except broken:
                continue
            yield from frames


def _seconds(duration: str) -> float:
    """Return the seconds of ``hours:minutes:seconds``, 0 of anything else."""
    try:
        hours, minutes, seconds = map(float, duration.split(':'))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


class VideoWriter:
    """Write an MP4 file atomically: H.264, with the sound of another file.

    Args:
        path: Ends in ``.mp4``.
        rate: Frames per second.
        sound: A video whose sound track goes with the frames.
    """

    def __init__(
        self, path: Path, *, rate: float | Fraction, sound: str | os.PathLike | None = None
    ) -> None:
        self._av = _av()
        self._path = path
        self._partial = path.with_name(f'.partial-{path.name}')
        self._rate = Fraction(rate).limit_denominator(1001)
        self._source = sound
        self._container: Any = None
        self._sound: SoundCopy | None = None
        self._count, self._last = 0, -1

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, picture: np.ndarray, *, time: float | None = None) -> None:
        """Append a frame (H, W, 3), BGR; one of another size than the first is scaled to it.

        Args:
            picture: The frame.
            time: When it is shown, in seconds; ``None``: at the rate of the file.

        Raises:
            UserError: If the file cannot be written.
        """
        try:
            if self._container is None:
                self._open(picture)
            if time is None:
                time = float(self._count / self._rate)
            self._count += 1
            self._last = max(self._last + 1, round(time / _TIME_BASE))
            if self._sound is not None:
                self._sound.write_until(time)
            self._container.mux(self._stream.encode(self._frame(picture)))
        except (self._av.error.FFmpegError, ValueError, OSError) as error:
            raise UserError(f'video {self._path} cannot be written: {error}') from error

    def _open(self, picture: np.ndarray) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._partial), 'w', format='mp4')
        self._stream = self._container.add_stream('libx264', rate=self._rate, options=_QUALITY)
        height, width = picture.shape[:2]
        # Colours have half the resolution: sides are even.
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = 'yuv420p'
        context = self._stream.codec_context
        context.time_base = _TIME_BASE
        context.colorspace = context.color_primaries = context.color_trc = _COLOURS
        if self._source is not None:
            self._sound = SoundCopy(self._av, self._source, self._container)

    def _frame(self, picture: np.ndarray) -> Any:
        size = self._stream.width, self._stream.height
        height, width = picture.shape[:2]
        missing = size[0] - width, size[1] - height
        if set(missing) <= {0, 1}:
            picture = cv2.copyMakeBorder(
                picture, 0, missing[1], 0, missing[0], cv2.BORDER_REPLICATE
            )
        else:
            picture = cv2.resize(picture, size)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='bgr24')
        frame = frame.reformat(format='yuv420p', dst_colorspace=_COLOURS, interpolation=_EXACT)
        frame.pts, frame.time_base = self._last, _TIME_BASE
        return frame

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._container is None:
            return
        # What could be read of a truncated video is worth keeping.
        is_kept = error is None or isinstance(error, DataError)
        try:
            if is_kept:
                self._container.mux(self._stream.encode(None))
                if self._sound is not None:
                    self._sound.write_until(float(self._last * _TIME_BASE + 1 / self._rate))
                    self._sound.finish()
        finally:
            if self._sound is not None:
                self._sound.close()
            self._container.close()
        if is_kept:
            publish(self._partial, self._path)
        else:
            discard(self._partial)
