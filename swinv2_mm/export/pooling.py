"""Export adaptive pooling for any size: ONNX has it for fixed sizes that divide only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MatrixPool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products whose weights follow from the size.

    Args:
        num_bins: Rows and columns of the outcome.
    """

    def __init__(self, num_bins: tuple[int, int]) -> None:
        super().__init__()
        self.num_bins = num_bins

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, bins, bins)."""
        if self.num_bins == (1, 1):
            return x.mean((2, 3), keepdim=True)
        # The last axis is averaged and becomes the one before it, twice. Copied before a product,
        # for which torch would ask whether a side is 1.
        for axis in (1, 0):
            weights = _averaging(x.shape[3], num_bins=self.num_bins[axis], like=x)
            x = x.clone(memory_format=torch.contiguous_format) @ weights.transpose(0, 1)
            x = x.transpose(2, 3)
        return x


def _averaging(length: int | torch.SymInt, *, num_bins: int, like: Tensor) -> Tensor:
    """Return the weights of an average over each bin: (bins, length)."""
    size, position = torch.full((), length), torch.arange(length)
    number = torch.arange(num_bins)[:, None]
    start = torch.div(number * size, num_bins, rounding_mode='floor')
    # The end is rounded up: neighbouring bins may share an element.
    stop = torch.div((number + 1) * size + num_bins - 1, num_bins, rounding_mode='floor')
    inside = (position >= start) & (position < stop)
    return inside.to(like.dtype) / (stop - start).to(like.dtype)


def replace_pools(model: nn.Module) -> None:
    """Put a ``MatrixPool`` in the place of every adaptive pooling in a model."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                size = child.output_size
                rows, columns = size if isinstance(size, tuple) else (size, size)
                # ``None`` keeps a side: no model of the three libraries pools so.
                assert rows is not None and columns is not None
                setattr(module, name, MatrixPool((rows, columns)))
