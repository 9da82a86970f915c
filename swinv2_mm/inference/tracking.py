"""Follow detections through the frames of a video, by ByteTrack of the package trackers."""

from __future__ import annotations

from typing import Any

import torch

from swinv2_mm.errors import UserError

from .prediction import Prediction

# Detections below this share of the score threshold are ignored: ByteTrack uses unsure ones to
# find lost objects again, and below it they are mostly noise.
_UNSURE_SHARE = 1 / 3


class Tracker:
    """Give the detections of a video track ids that an object keeps from frame to frame.

    Detections are followed class by class. One that is seen for the first time, or too unsure to
    begin a track, has the id -1.

    Args:
        rate: Frames per second of the video.
        score_threshold: A detection begins a track from this score on.

    Raises:
        UserError: If the package trackers is not installed.
    """

    def __init__(self, *, rate: float, score_threshold: float) -> None:
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise UserError(
                f"tracking needs the package trackers: pip install 'trackers>=2.4' ({error})"
            ) from error
        self._detections = supervision.Detections
        self._new_tracker = lambda: ByteTrackTracker(
            frame_rate=rate,
            track_activation_threshold=score_threshold,
            high_conf_det_threshold=score_threshold,
            minimum_consecutive_frames=1,
        )
        self._least_score = _UNSURE_SHARE * score_threshold
        self._trackers: dict[int, Any] = {}
        self._ids: dict[tuple[int, int], int] = {}

    def update(self, prediction: Prediction) -> None:
        """Add ``track_ids`` to the detections of the next frame, in place."""
        found = prediction.sample.pred_instances
        ids = torch.full((len(found),), -1)
        is_sure = found.scores >= self._least_score
        for label in sorted({*self._trackers, *found.labels[is_sure].tolist()}):
            rows = (is_sure & (found.labels == label)).nonzero()[:, 0].numpy()
            if label not in self._trackers:
                self._trackers[label] = self._new_tracker()
            tracked = self._trackers[label].update(
                self._detections(
                    xyxy=found.bboxes[rows].numpy().reshape(-1, 4),
                    confidence=found.scores[rows].numpy(),
                    class_id=found.labels[rows].numpy(),
                    data={'row': rows},
                )
            )
            for row, number in zip(tracked.data.get('row', ()), tracked.tracker_id, strict=True):
                if number >= 0:
                    ids[row] = self._ids.setdefault((label, int(number)), len(self._ids) + 1)
        found.track_ids = ids
