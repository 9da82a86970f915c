"""Fit the patch embedding of weights to other input channels and patch sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STEM = 'patch_embed.proj.weight'
# Resampling takes the square of the pixels of a patch in memory: 134 MB.
_LARGEST_PATCH_PX = 64


def fit_stem(weights: dict[str, Tensor], *, target: Tensor) -> str | None:
    """Change the stem in ``weights`` to the shape of ``target``, and say how.

    Returns:
        What was done; ``None`` if the shapes agree already, or cannot be made to agree.
    """
    stem = weights.get(STEM)
    if stem is None or stem.ndim != 4 or not stem.is_floating_point() or 0 in stem.shape:
        return None
    (dim, channels, *patch), (target_dim, target_channels, *target_patch) = stem.shape, target.shape
    if dim != target_dim or patch[0] != patch[1] or stem.shape == target.shape:
        return None
    if patch[0] > _LARGEST_PATCH_PX:
        return None
    done = []
    if channels != target_channels:
        stem = other_channels(stem, num_channels=target_channels)
        how = 'summed' if target_channels == 1 else 'repeated'
        done.append(f'{how} from {channels} to {target_channels} input channels')
    if patch != target_patch:
        stem = other_patch(stem, patch_size_px=target_patch[0])
        done.append(f'resampled from patches of {patch[0]} to {target_patch[0]} pixels')
    weights[STEM] = stem
    return ' and '.join(done)


def other_channels(stem: Tensor, *, num_channels: int) -> Tensor:
    """Fit a stem to images with another number of channels.

    One channel gets the sum, as if it were all of the old ones. More repeat the old ones in
    turn, shared out so that equal channels give the old response; fewer are the first ones,
    scaled up.

    Shapes:
        (C, in_channels, p, p) -> (C, num_channels, p, p)
    """
    if num_channels == 1:
        return stem.sum(1, keepdim=True)
    old = stem.shape[1]
    if num_channels < old:
        return stem[:, :num_channels] * (old / num_channels)
    turns = torch.arange(num_channels, device=stem.device) % old
    # The last turn may be a part of one: some of the old channels occur once more than others.
    share = torch.bincount(turns).to(stem.dtype)
    return stem[:, turns] / share[turns].view(-1, 1, 1)


def other_patch(stem: Tensor, *, patch_size_px: int) -> Tensor:
    """Resample a stem so that an enlarged image gives nearly the old tokens.

    With B the bilinear resizing of a patch, the new weights solve B^T w' = w: exactly for larger
    patches, in the least squares sense for smaller ones (FlexiViT, arXiv 2212.08013, section 3.4).

    Shapes:
        (C, in_channels, p, p) -> (C, in_channels, patch_size_px, patch_size_px)
    """
    p, q = stem.shape[2], patch_size_px
    pixels = torch.eye(p * p, dtype=torch.float64, device=stem.device).view(-1, 1, p, p)
    resized = F.interpolate(pixels, size=(q, q), mode='bilinear', antialias=True)
    # Row by row: what each old pixel becomes, which is B^T.
    inverse = torch.linalg.pinv(resized.flatten(1))
    return (stem.double().flatten(2) @ inverse.t()).unflatten(2, (q, q)).to(stem.dtype)
