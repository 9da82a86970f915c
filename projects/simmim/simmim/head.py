"""Compute the reconstruction loss of SimMIM: targets and L1 on masked pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

# The official constants: of an empty mask, and of a window of one colour.
_MASK_EPS = 1e-5
_VARIANCE_EPS = 1e-6


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute difference over the masked pixels of a batch, as the official code.

    Shapes:
        (B, C, H, W), (B, C, H, W), (B, H, W) with 1 where masked -> ()
    """
    difference = (prediction - target).abs() * mask.unsqueeze(1)
    return difference.sum() / (mask.sum() + _MASK_EPS) / target.shape[1]


def local_statistics(images: Tensor, *, window_px: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the window around each pixel, as far as it is in the image.

    The variance is the unbiased one of the pixels that are there (official ``NORM_TARGET``).

    Shapes:
        (B, C, H, W) -> twice (B, C, H, W)
    """

    def window_mean(x: Tensor, *, with_padding: bool = False) -> Tensor:
        return F.avg_pool2d(
            x, window_px, stride=1, padding=window_px // 2, count_include_pad=with_padding
        )

    mean = window_mean(images)
    count = window_mean(torch.ones_like(images[:1, :1]), with_padding=True) * window_px**2
    variance = (window_mean(images.square()) - mean.square()) * count / (count - 1)
    return mean, (variance.clamp(min=0) + _VARIANCE_EPS).sqrt()


@MODELS.register_module()
class MaskedPixelHead(nn.Module):
    """L1 on the masked pixels only.

    mmpretrain's ``PixelReconstructionLoss`` divides by the mask without the official epsilon, so
    that a batch without a mask is NaN, and has no normalised targets.

    Args:
        patch_size: Pixels per side of a token, which the mask counts in.
        target_window_px: Odd side of the window that each pixel of the target is normalised by;
            ``None``: the target is the image. The official SwinV2 recipe has 47.

    Raises:
        ValueError: If the window is not odd and larger than 1.
    """

    def __init__(self, *, patch_size: int = 4, target_window_px: int | None = None) -> None:
        super().__init__()
        if target_window_px is not None and (target_window_px < 3 or target_window_px % 2 == 0):
            raise ValueError(f'target_window_px must be odd and at least 3, got {target_window_px}')
        self.patch_size = patch_size
        self.target_window_px = target_window_px

    def loss(self, prediction: Tensor, images: Tensor, mask: Tensor) -> Tensor:
        """Return the loss of a batch.

        Shapes:
            (B, C, H, W), (B, C, H, W), (B, H / patch_size, W / patch_size) -> ()
        """
        return masked_l1(prediction, self.target(images), self.in_pixels(mask))

    def in_pixels(self, mask: Tensor) -> Tensor:
        """(B, h, w) -> (B, h * patch_size, w * patch_size)."""
        p = self.patch_size
        return mask.repeat_interleave(p, dim=1).repeat_interleave(p, dim=2)

    def target(self, images: Tensor) -> Tensor:
        """Return what is to be predicted for the pixels of ``images``."""
        if self.target_window_px is None:
            return images
        mean, deviation = local_statistics(images, window_px=self.target_window_px)
        return (images - mean) / deviation

    def as_images(self, prediction: Tensor, images: Tensor) -> Tensor:
        """Invert ``target``, with the statistics of ``images``."""
        if self.target_window_px is None:
            return prediction
        mean, deviation = local_statistics(images, window_px=self.target_window_px)
        return prediction * deviation + mean
