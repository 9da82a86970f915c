"""Compare the scores of predictions with how often they are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_NUM_BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal width of their score.

    Attributes:
        counts: Predictions per bin.
        scores: Sum of their scores.
        right: How many of them are right.
    """

    counts: np.ndarray
    scores: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, is_right: np.ndarray) -> Reliability:
        """Sort predictions into bins."""
        bins = np.minimum((scores * _NUM_BINS).astype(int), _NUM_BINS - 1)
        return cls(
            *(
                np.bincount(bins, weights=weights, minlength=_NUM_BINS)
                for weights in (np.ones(len(scores)), scores, is_right)
            )
        )

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(
            self.counts + other.counts, self.scores + other.scores, self.right + other.right
        )

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017, equation 3).

        It is the mean distance of score and share that is right, over all predictions.
        """
        return float(np.abs(self.scores - self.right).sum() / max(self.counts.sum(), 1))

    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean score, share that is right, and share of all, of the bins that hold any."""
        filled = self.counts > 0
        counts = self.counts[filled]
        return self.scores[filled] / counts, self.right[filled] / counts, counts / counts.sum()
