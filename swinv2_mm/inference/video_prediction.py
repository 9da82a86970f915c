"""Predict for the frames of a video."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from swinv2_mm.ordered_map import read_ahead

from .inferencer import SwinV2Inferencer
from .prediction import Prediction
from .tracking import Tracker
from .video import VideoReader, VideoWriter


def predict_video(
    inferencer: SwinV2Inferencer,
    reader: VideoReader,
    *,
    lines: Path,
    drawn: Path,
    draw: Callable[[Prediction], np.ndarray | None],
    batch_size: int = 1,
    track_from: float | None = None,
) -> int:
    """Predict for a video while its next frames are decoded; return the number of frames.

    Args:
        inferencer: What predicts.
        reader: The video.
        lines: File that receives a line of JSON per frame.
        drawn: File that receives the frames that ``draw`` returns, with the sound of the video.
        draw: Draws a prediction, or returns ``None`` to write no frames.
        batch_size: Frames that go through the model together.
        track_from: Score from which a detection begins a track; ``None`` follows nothing.

    Raises:
        DataError: If the video is truncated; what could be read is written.
        UserError: If a package is missing, or a file cannot be written.
    """
    tracker = None
    if track_from is not None:
        tracker = Tracker(rate=float(reader.rate), score_threshold=track_from)
    frames = inferencer(read_ahead(reader, num_ahead=2 * batch_size), batch_size=batch_size)
    total = reader.num_frames or None
    bar = tqdm(frames, total=total, desc=lines.stem, leave=False, disable=None)
    lines.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        lines.open('w') as file,
        VideoWriter(drawn, rate=reader.rate, sound=reader.path) as writer,
    ):
        for count, prediction in enumerate(bar, start=1):
            if tracker is not None:
                tracker.update(prediction)
            time = reader.times.popleft()
            record = {'frame': count - 1, 'time': round(time, 4), **prediction.to_dict()}
            file.write(json.dumps(record) + '\n')
            if (picture := draw(prediction)) is not None:
                writer.write(picture, time=time)
    return count
