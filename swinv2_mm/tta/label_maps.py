"""Merge semantic segmentation over views: the mean of the class probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import Module

from swinv2_mm.config.entries import FLIPS

from .views import LoadedImage, View


def mirror_back(sample: SegDataSample, mirroring: str) -> None:
    """Flip the maps of a mirrored image back, in place."""
    if mirroring == 'none':
        return
    for name in ('seg_logits', 'pred_sem_seg'):
        pixels = sample.get(name)
        pixels.data = pixels.data.flip(FLIPS[mirroring])


def merge(
    model: Module, views: Sequence[View], loaded: Sequence[LoadedImage], *, nms: dict | None
) -> list[SegDataSample]:
    """Average the probabilities at the original size; three maps of them exist at a time.

    mmseg's own ``SegTTAModel`` does the same with the predictions of all views held together,
    and takes the sigmoid of a two-class map twice.
    """
    merged: list[SegDataSample] = []
    for view in views:
        samples = model.test_step(view.batch(loaded))
        for i, sample in enumerate(samples):
            mirror_back(sample, view.mirroring)
            probabilities = _probabilities(model, sample.seg_logits.data)
            if len(merged) == i:
                merged.append(sample)
                sample.seg_logits = PixelData(data=probabilities)
            else:
                merged[i].seg_logits.data += probabilities
            del sample, probabilities
        del samples
    for sample in merged:
        mean = sample.seg_logits.data.div_(len(views))
        if len(mean) > 1:
            labels = mean.argmax(dim=0, keepdim=True)
        else:
            labels = (mean > model.decode_head.threshold).to(mean)
        sample.set_data({'pred_sem_seg': PixelData(data=labels)})
    return merged


def _probabilities(model: Module, scores: Tensor) -> Tensor:
    """Class probabilities (classes, H, W) of what mmseg calls logits.

    They are no logits where there is one map (its sigmoid has been taken) nor for MaskFormer and
    its heirs (sums of mask probabilities).
    """
    heads = {base.__name__ for base in type(model.decode_head).__mro__}
    if len(scores) == 1 or 'MaskFormerHead' in heads:
        return scores.clone()
    return scores.float().softmax(dim=0)
