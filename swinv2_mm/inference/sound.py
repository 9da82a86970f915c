"""Copy the sound of a video while its frames are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# A file, such as a play list, must not make FFmpeg open other files.
LOCAL_FILES = {'protocol_whitelist': 'file'}
# Codecs that an MP4 file can hold; other sound is encoded as AAC.
_COPIED_SOUND = frozenset({'aac', 'mp3', 'opus', 'flac', 'alac', 'ac3', 'eac3'})
_SAMPLES_PER_SECOND = 48_000


class SoundCopy:
    """The sound track of a file, copied to a container while its frames are written.

    Without a track, or with one that cannot be decoded, the container gets none.

    Args:
        av: PyAV.
        path: The file.
        output: The container, before anything is written to it.
    """

    def __init__(self, av: ModuleType, path: str | os.PathLike, output: Any) -> None:
        self._av, self._output = av, output
        self._input = av.open(os.fspath(path), options=LOCAL_FILES)
        self._track = None
        source = self._input.streams.best('audio')
        if source is None or source.codec_context is None:
            return
        self._is_copied = source.codec_context.codec.canonical_name in _COPIED_SOUND
        if self._is_copied:
            self._track = output.add_stream_from_template(source)
        else:
            # PyAV resamples what it encodes.
            self._track = output.add_stream('aac', rate=_SAMPLES_PER_SECOND)
            is_mono = source.codec_context.channels == 1
            self._track.codec_context.layout = 'mono' if is_mono else 'stereo'
        self._packets = self._parts(source)
        self._next = next(self._packets, None)

    def _parts(self, source: Any) -> Iterator[tuple[float, Any]]:
        """Yield packets, or frames to encode, with the second that each begins at."""
        packets = self._input.demux(source)
        while True:
            try:
                packet = next(packets)
                parts = [packet] if self._is_copied else packet.decode()
            except StopIteration:
                return
            except self._av.error.FFmpegError:
                # One broken packet, or the end of a truncated file, after which nothing comes.
                continue
            for part in parts:
                if part.pts is not None:
                    yield part.pts * float(part.time_base), part

    def write_until(self, time: float) -> None:
        """Write what begins before a second."""
        while self._track is not None and self._next is not None and self._next[0] < time:
            self._write(self._next[1])
            self._next = next(self._packets, None)

    def _write(self, part: Any) -> None:
        if self._is_copied:
            part.stream = self._track
            self._output.mux(part)
        else:
            self._output.mux(self._track.encode(part))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._track is not None and not self._is_copied:
            self._output.mux(self._track.encode(None))

    def close(self) -> None:
        """Close the file that the sound is read from."""
        self._input.close()
