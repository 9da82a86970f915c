"""Convolutions that pad as MindSpore's do by default, or as the authors' code."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class StridedConv2d(nn.Conv2d):
    """A convolution with the parameters of another one, and a choice of its padding.

    Args:
        conv: The other one.

    Attributes:
        is_same_padded: Whether a map of n tokens gives ceil(n / stride), padded as MindSpore and
            TensorFlow do: with equal sides, or one less at the top and left.
    """

    is_same_padded = False

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            bias=conv.bias is not None,
        )
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        if not self.is_same_padded:
            return super().forward(x)
        pads = []
        # F.pad begins with the last axis.
        for axis in (1, 0):
            side, stride, kernel = x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)
