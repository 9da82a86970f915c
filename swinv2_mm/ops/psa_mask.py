"""The masks of point-wise spatial attention, PSANet (Zhao et al., 2018), in plain torch.

Each pixel predicts weights for a window around it; the op lays them out over the whole map.

Shape letters: ``B`` images, ``H W`` map, ``h w`` window.
"""

from __future__ import annotations

import torch
from torch import Tensor

COLLECT = 0  # the code mmcv passes for psa_type='collect'; 1 is 'distribute'


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the weight between all pairs of pixels to ``output``, zero where out of the window.

    Args:
        input: The weights that each pixel predicts.
        output: Written in place. Channels are other pixels, places the predicting ones
            (:data:`COLLECT`), or the other way round.
        psa_type: Which of the two.
        num_: ``B``.
        h_feature, w_feature: Size of the map.
        h_mask, w_mask: Size of the window.
        half_h_mask, half_w_mask: Place of the predicting pixel in the window.

    Shapes:
        input (B, h*w, H, W), output (B, H*W, H, W)
    """
    index, is_inside = _places(
        (h_feature, w_feature), (h_mask, w_mask), (half_h_mask, half_w_mask), input.device
    )
    pairs = input.gather(1, index.expand(num_, -1, -1, -1)) * is_inside
    output.copy_(_turned(pairs, psa_type))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Add the gradient of the weights to ``grad_input``."""
    index, is_inside = _places(
        (h_feature, w_feature), (h_mask, w_mask), (half_h_mask, half_w_mask), grad_output.device
    )
    pairs = _turned(grad_output, psa_type) * is_inside
    grad_input.scatter_add_(1, index.expand(num_, -1, -1, -1), pairs)


def _turned(pairs: Tensor, psa_type: int) -> Tensor:
    """Exchange the two pixels of each pair, unless the type is :data:`COLLECT`."""
    if psa_type == COLLECT:
        return pairs
    return pairs.flatten(2).transpose(1, 2).reshape_as(pairs)


def _places(
    size: tuple[int, int], window: tuple[int, int], centre: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Where in the window of a pixel each other pixel is, and whether it is in it.

    Shapes:
        -> (H*W, H, W), (H*W, H, W)
    """
    steps = []
    for side, middle in zip(size, centre, strict=True):
        along = torch.arange(side, device=device)
        steps.append(along[:, None] - along + middle)
    rows, columns = steps[0][:, None, :, None], steps[1][None, :, None, :]
    is_inside = (rows >= 0) & (rows < window[0]) & (columns >= 0) & (columns < window[1])
    index = torch.where(is_inside, rows * window[1] + columns, 0)
    return index.flatten(0, 1), is_inside.flatten(0, 1)
