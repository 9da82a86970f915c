"""Decode frames of a video file by index, through FFmpeg (PyAV)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.error import FFmpegError

from swinv2_mm.errors import DataError

# A file, a play list for one, must not make FFmpeg open others.
_OPTIONS = {'protocol_whitelist': 'file'}


class VideoFile:
    """The first video stream of a file.

    Attributes:
        num_frames: Frames that the file holds, counted without decoding them.

    Raises:
        DataError: If the file is missing or is no video.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise DataError(f'video {self.path} does not exist')
        try:
            self._open()
        except (FFmpegError, IndexError, AttributeError):
            # No container, no stream, or one that FFmpeg cannot decode and gives no context.
            raise DataError(f'video {self.path} cannot be read: truncated or not a video') from None
        times, self._key_times = [], []
        for packet in self._packets():
            # The last one is empty; some are there only for others to refer to.
            if packet.size and not packet.is_discard:
                times.append(packet.pts)
                if packet.is_keyframe:
                    self._key_times.append(packet.pts)
        self.num_frames = len(times)
        # In the order of showing; where a file lacks them, frames can only be counted.
        is_timed = None not in times and len(set(times)) == len(times)
        self._times = sorted(times) if is_timed else None
        if not times:
            self.close()
            raise DataError(f'video {self.path} holds no frames')

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Decode frames, in any order and as often as wanted.

        Args:
            numbers: Numbers of frames, from 0 to ``num_frames - 1``.

        Shapes:
            -> (n, H, W, 3) uint8, RGB

        Raises:
            DataError: If one of them cannot be decoded.
        """
        wanted = set(map(int, numbers))
        frames: dict[int, np.ndarray] = {}
        # What follows a key frame may still need what is before it (open GOPs): then all is read.
        for decode in (self._from_key_frame, self._from_start):
            for number, frame in decode(min(wanted)):
                if number in wanted:
                    frames[number] = frame.to_ndarray(format='rgb24')
                if number >= max(wanted):
                    break
            if len(frames) == len(wanted):
                break
        if missing := wanted - frames.keys():
            raise DataError(
                f'video {self.path} is broken or truncated: frame {min(missing)} of '
                f'{self.num_frames} cannot be decoded'
            )
        if len({frame.shape for frame in frames.values()}) > 1:
            raise DataError(f'video {self.path} changes its size on the way')
        return np.stack([frames[int(number)] for number in numbers])

    def _open(self) -> None:
        self._container = av.open(self.path, options=_OPTIONS)
        self._stream = self._container.streams.video[0]
        # Videos are read by as many workers as there are cores.
        self._stream.codec_context.thread_count = 1

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from self._container.demux(self._stream)
        except FFmpegError:
            # The end of a truncated file.
            return

    def _from_key_frame(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        if self._times is not None:
            earlier = (time for time in self._key_times if time <= self._times[first])
            self._container.seek(max(earlier, default=self._times[0]), stream=self._stream)
            yield from self._decoded()

    def _from_start(self, _: int) -> Iterator[tuple[int, av.VideoFrame]]:
        self.close()
        self._open()
        yield from self._decoded()

    def _decoded(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield the frames that follow, with their numbers; what is broken is left out."""
        numbers = {time: number for number, time in enumerate(self._times or ())}
        count = 0
        for packet in self._packets():
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                number = count if self._times is None else numbers.get(frame.pts)
                if number is not None:
                    yield number, frame
                count += 1
