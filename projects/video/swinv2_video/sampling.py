"""Sample the frames of a clip from a video.

Where in the video, or in a part of it, a frame is taken from is a position in [0, 1): drawn at
random in training, the middle in testing. Several clips of a test have their positions in the
middles of as many equal parts.
"""

from __future__ import annotations

import numpy as np


def middles(num_parts: int) -> np.ndarray:
    """Return the middles of equal parts of [0, 1)."""
    return (np.arange(num_parts) + 0.5) / num_parts


def dense_frames(
    num_frames: int, *, clip_len: int, interval: int, positions: np.ndarray
) -> np.ndarray:
    """Take every ``interval``-th frame from some start on.

    A video that is shorter than the clip starts over.

    Args:
        num_frames: Frames of the video.
        clip_len: Frames of a clip.
        interval: Frames from one to the next.
        positions: Position of the start of each clip among all possible ones.

    Shapes:
        positions (clips,) -> (clips, clip_len)
    """
    num_starts = max(num_frames - (clip_len - 1) * interval, 1)
    starts = (positions * num_starts).astype(np.int64)
    return (starts[:, None] + interval * np.arange(clip_len)) % num_frames


def uniform_frames(num_frames: int, *, positions: np.ndarray) -> np.ndarray:
    """Cut the video into equal segments and take a frame of each (TSN, arXiv 1608.00859).

    Args:
        num_frames: Frames of the video.
        positions: Position of each frame inside its segment.

    Shapes:
        positions (clips, clip_len) -> (clips, clip_len)
    """
    clip_len = positions.shape[1]
    return ((np.arange(clip_len) + positions) * (num_frames / clip_len)).astype(np.int64)
