"""Convolution at chosen pixels only, which guided anchoring uses in testing.

mmcv multiplies; the ops gather the neighbourhoods and lay the results out. Neither has a gradient.

Shape letters: ``C`` channels, ``H W`` map, ``n`` chosen pixels, ``h w`` kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the neighbourhoods of the chosen pixels to ``col``.

    Shapes:
        im (1, C, H, W), mask_h_idx and mask_w_idx (n,), col (C*h*w, n)
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write a column of ``col`` to each chosen pixel of ``im``.

    Shapes:
        col (C, n), mask_h_idx and mask_w_idx (n,), im (1, C, H, W)
    """
    im[0, :, mask_h_idx, mask_w_idx] = col
