"""Measure the error of predicted masked pixels."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

_NAMES = ('masked_l1', 'mean_colour_l1')


@METRICS.register_module()
class MaskedL1(BaseMetric):
    """The loss of SimMIM on held-out images, and that of a grey guess to compare it with.

    ``masked_l1``: mean over images. ``mean_colour_l1``: the same if each image's masked pixels
    were predicted to be the mean of its visible ones.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the errors of a batch."""
        self.results += [{name: sample[name] for name in _NAMES} for sample in data_samples]

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Average over images."""
        return {name: sum(r[name] for r in results) / len(results) for name in _NAMES}
