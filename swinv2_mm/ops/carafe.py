"""Content-aware reassembly of features, CARAFE (Wang et al., 2019), in plain torch.

Shape letters: ``B`` images, ``C`` channels, ``H W`` map, ``G`` groups, ``k`` kernel side, ``s``
scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import compute_dtype


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the upsampled map to ``output``: each pixel is a sum over its source's neighbours.

    Args:
        features: The map.
        masks: A kernel for each pixel of the output and each group of channels.
        rfeatures: What mmcv saves for :func:`carafe_backward`: the features, here as they are.
        routput, rmasks: Unused work space.
        output: Written in place.
        kernel_size: Odd side of the neighbourhood; what lies outside the map counts as zero.
        group_size: Number of groups of channels.
        scale_factor: Factor of the upsampling.

    Shapes:
        features (B, C, H, W), masks (B, G*k*k, s*H, s*W), output (B, C, s*H, s*W)
    """
    rfeatures.copy_(features)
    dtype = compute_dtype(features, masks)
    for image, kernels, target in zip(features, masks, output, strict=True):
        target.copy_(_reassemble(image.to(dtype), kernels.to(dtype), groups=group_size))


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks to ``bottom_grad`` and ``mask_grad``.

    ``rtop_grad``, ``rbottom_grad_hs``, ``rbottom_grad`` and ``rmask_grad`` are unused work space.
    """
    dtype = compute_dtype(rfeatures, masks)
    for index, grad in enumerate(top_grad):
        leaves = [t[index].detach().to(dtype).requires_grad_() for t in (rfeatures, masks)]
        with torch.enable_grad():
            output = _reassemble(*leaves, groups=group_size)
        grads = torch.autograd.grad(output, leaves, grad.to(dtype))
        bottom_grad[index], mask_grad[index] = grads


def _reassemble(features: Tensor, masks: Tensor, *, groups: int) -> Tensor:
    """The output of one image: an image at a time, since each source holds k*k neighbours.

    Shapes:
        (C, H, W), (G*k*k, s*H, s*W) -> (C, s*H, s*W)
    """
    channels, height, width = features.shape
    scale = masks.shape[1] // height
    taps = len(masks) // groups
    side = round(taps**0.5)
    neighbours = F.unfold(features[None], side, padding=side // 2)
    neighbours = neighbours.view(groups, channels // groups, taps, height, width)
    kernels = masks.view(groups, taps, height, scale, width, scale)
    return torch.einsum('gckhw,gkhiwj->gchiwj', neighbours, kernels).reshape(
        channels, height * scale, width * scale
    )
