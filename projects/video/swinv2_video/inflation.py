"""Inflate the weights of an image SwinV2 to a video model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from swinv2_mm.checkpoint import CheckpointError, LoadReport, load_pretrained
from swinv2_mm.checkpoint.reading import Source, open_weights
from swinv2_mm.checkpoint.stem import STEM
from swinv2_mm.core import SwinTransformerV2


def load_inflated(video: SwinTransformerV2, source: Source) -> LoadReport:
    """Load image weights in any layout that ``load_pretrained`` reads into a video model.

    A model for images is made on the way, so that memory for a second copy is needed.

    Args:
        video: A ``VideoSwinV2``.
        source: See ``load_pretrained``.

    Raises:
        CheckpointError: If the weights cannot be read, do not fit or are those of a video model.
    """
    weights = open_weights(source)
    if any(value.ndim == 5 for value in weights.tensors.values()):
        raise CheckpointError(
            f'{weights.origin} holds the weights of a model for videos, which need no inflation: '
            'give the file to load_from instead of init_cfg'
        )
    pretrained = [window[1:] for window in video.get_pretrained_window_sizes()]
    stem = video.patch_embed.proj
    image = SwinTransformerV2(
        video.arch,
        window_size=[window[1:] for window in video.window_sizes],
        pretrained_window_sizes=pretrained if video.pretrained_window_sizes_given else None,
        position_bias=video.layers[0].blocks[0].attn.position_bias,
        out_indices=video.out_indices,
        in_channels=stem.in_channels,
        patch_size_px=stem.kernel_size[-1],
    ).to(stem.weight)
    report = load_pretrained(image, weights)
    inflate(image, into=video)
    return report


@torch.no_grad()
def inflate(image: SwinTransformerV2, *, into: SwinTransformerV2) -> None:
    """Copy the weights of an image model into a video model of the same architecture.

    A video that stands still then gives, at every time, the maps of its frame: the stem averages
    the frames of a tubelet; the position bias does not depend on time, as the new column of its
    network is zero (it learns: the coordinates are not); and a softmax over copies of keys is the
    softmax over the keys.

    Raises:
        ValueError: If the two do not have the same parameters.
    """
    weights = dict(image.named_parameters())
    inflated = {name: _inflated(name, weights.get(name), p) for name, p in into.named_parameters()}
    for name, parameter in into.named_parameters():
        if inflated[name] is None or inflated[name].shape != parameter.shape:
            raise ValueError(f'the image model has no {name} that fits: is its arch another one?')
    for name, parameter in into.named_parameters():
        parameter.copy_(inflated[name])
    windows = zip(into.window_sizes, image.get_pretrained_window_sizes(), strict=True)
    into.set_pretrained_window_sizes([(window[0], *trained) for window, trained in windows])


def _inflated(name: str, value: Tensor | None, target: Tensor) -> Tensor | None:
    if value is not None and name == STEM:
        num_frames = target.shape[2]
        return value[:, :, None].expand(-1, -1, num_frames, -1, -1) / num_frames
    if value is not None and name.endswith('cpb_mlp.0.weight'):
        return F.pad(value, (1, 0))
    return value
