"""A recogniser of actions: backbone, mean over the last map, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn


@MODELS.register_module()
class VideoPreprocessor(BaseDataPreprocessor):
    """Stack the views of a batch of videos and normalise them.

    Args:
        mean: Mean of the channels, RGB, in [0, 255].
        std: Standard deviation of the channels.
    """

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Turn ``inputs``, a list of (views, 3, frames, H, W), into a float (B, views, ...).

        Videos with fewer views than others repeat their first; its copies have no weight.
        """
        data = self.cast_data(data)
        most = max(map(len, data['inputs']))
        views = [x[[*range(len(x)), *[0] * (most - len(x))]] for x in data['inputs']]
        return {**data, 'inputs': (torch.stack(views) - self.mean) / self.std}


@MODELS.register_module()
class VideoRecognizer(BaseModel):
    """Score classes for each view of a video and average over the views.

    A video's score is the mean of its views' softmax. In training each view counts by itself. Views
    count as often as ``view_weights`` of their sample say.

    Args:
        backbone: Config of a ``VideoSwinV2``, whose last map is used.
        num_classes: Classes.
        dropout_rate: Rate of dropout on the mean feature, in [0, 1).
        views_per_pass: Views that a test runs at a time, to save memory; ``None``: all of a batch.
        data_preprocessor: Config of a ``VideoPreprocessor``.
    """

    def __init__(
        self,
        backbone: dict,
        *,
        num_classes: int,
        dropout_rate: float = 0.0,
        views_per_pass: int | None = None,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.dropout = nn.Dropout(dropout_rate)
        self.head = nn.Linear(self.backbone.out_channels[-1], num_classes)
        self.views_per_pass = views_per_pass

    def init_weights(self) -> None:
        """Initialise the backbone by its ``init_cfg``, and the head anew."""
        super().init_weights()
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[DataSample] | None = None,
        mode: Literal['tensor', 'loss', 'predict'] = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[DataSample]:
        """Return the views' logits, the loss, or the samples with their scores and labels.

        Shapes:
            inputs (B, views, 3, frames, H, W); logits (B, views, num_classes)
        """
        if mode == 'predict':
            return self._predict(inputs, data_samples)
        num_views = inputs.shape[1]
        logits = self._logits(inputs.flatten(0, 1))
        if mode == 'tensor':
            return logits.unflatten(0, (-1, num_views))
        labels = torch.cat([sample.gt_label for sample in data_samples])
        losses = F.cross_entropy(
            logits, labels.repeat_interleave(num_views), reduction='none'
        ).unflatten(0, (-1, num_views))
        weights = _view_weights(data_samples, like=losses)
        return {'loss': (losses * weights).sum() / weights.sum()}

    def _logits(self, videos: Tensor) -> Tensor:
        """(n, 3, frames, H, W) -> (n, num_classes)."""
        return self.head(self.dropout(self.backbone(videos)[-1].mean((2, 3, 4)))).float()

    def _predict(self, inputs: Tensor, data_samples: list[DataSample] | None) -> list[DataSample]:
        views = inputs.flatten(0, 1)
        parts = views.split(self.views_per_pass or len(views))
        scores = torch.cat([self._logits(part).softmax(-1) for part in parts])
        scores = scores.unflatten(0, (-1, inputs.shape[1]))
        weights = _view_weights(data_samples or [], like=scores[..., 0])[..., None]
        scores = (scores * weights).sum(1) / weights.sum(1)
        samples = data_samples or [DataSample() for _ in scores]
        for sample, score in zip(samples, scores, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax(keepdim=True))
        return samples


def _view_weights(samples: list[DataSample], *, like: Tensor) -> Tensor:
    """Return how often each view counts.

    Shapes:
        like (B, views) -> (B, views)
    """
    weights = torch.ones_like(like)
    for row, sample in zip(weights, samples, strict=False):
        if counts := sample.get('view_weights'):
            row.zero_()[: len(counts)] = row.new_tensor(counts)
    return weights
