"""Choose the dtype in which the stand-in ops compute."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest dtype among ``tensors``, float32 at least.

    Nothing is computed in half precision: torchvision's CPU kernels lack it in part, and
    coordinates need more than its 8 or 11 bits (bf16 turns 1333 into 1336).
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
