"""Deformable RoI pooling (Dai et al., 2017), in plain torch.

Shape letters: ``B`` images, ``C`` channels, ``H W`` map, ``K`` boxes, ``h w`` bins, ``n`` samples
of a bin along one axis.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import compute_dtype

# Boxes whose samples are held at a time.
CHUNK = 32


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the mean of bilinear samples of each bin to ``output``.

    Args:
        input: The map.
        rois: Image index and corners ``x1, y1, x2, y2``; a unit is ``spatial_scale`` map pixels.
        offset: Shift ``x, y`` of each bin, in ``gamma`` sides of the box; empty for none.
        output: Written in place.
        pooled_height, pooled_width: Number of bins.
        spatial_scale: Size of the map divided by that of the image the boxes refer to.
        sampling_ratio: Samples per bin and axis; 0 for one per map pixel, rounded up.
        gamma: Unit of the offsets.

    Shapes:
        input (B, C, H, W), rois (K, 5), offset (K, 2, h, w) or (0,), output (K, C, h, w)
    """
    dtype = compute_dtype(input, rois)
    boxes = rois[:, 1:].to(dtype) * spatial_scale - 0.5
    shifts = _shifts(offset, output).to(dtype) * gamma
    output.zero_()
    for image, chosen, counts in _chunks(rois, boxes, output.shape[2:], ratio=sampling_ratio):
        output[chosen] = _pool(
            input[image].to(dtype), boxes[chosen], shifts[chosen], counts=counts
        ).to(output.dtype)


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Add the gradients to ``grad_input`` and ``grad_offset``; boxes have none.

    They are those of the function. The compiled op extrapolates at samples up to a pixel outside
    the map, where the function is constant; its gradients of offsets differ there.
    """
    dtype = compute_dtype(input, rois)
    boxes = rois[:, 1:].to(dtype) * spatial_scale - 0.5
    shifts = _shifts(offset, grad_output).to(dtype) * gamma
    for image, chosen, counts in _chunks(rois, boxes, grad_output.shape[2:], ratio=sampling_ratio):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (input[image], shifts[chosen])]
        with torch.enable_grad():
            output = _pool(leaves[0], boxes[chosen], leaves[1], counts=counts)
        grads = torch.autograd.grad(output, leaves, grad_output[chosen].to(dtype))
        grad_input[image] += grads[0]
        if offset.numel():
            grad_offset[chosen] += gamma * grads[1]


def _shifts(offset: Tensor, output: Tensor) -> Tensor:
    size, bins = len(output), output.shape[2:]
    return offset if offset.numel() else offset.new_zeros((size, 2, *bins))


def _chunks(
    rois: Tensor, boxes: Tensor, bins: torch.Size, *, ratio: int
) -> Iterator[tuple[int, Tensor, tuple[int, int]]]:
    """Image, indices and samples per bin and axis (y, x) of boxes that are pooled together."""
    sides = boxes[:, 2:] - boxes[:, :2]
    counts = torch.ceil(sides / sides.new_tensor([bins[1], bins[0]])).long()
    counts = torch.full_like(counts, ratio) if ratio > 0 else counts
    kinds, kind_of_box = torch.cat([rois[:, :1].long(), counts], 1).unique(
        dim=0, return_inverse=True
    )
    for index, (image, count_x, count_y) in enumerate(kinds.tolist()):
        if min(count_x, count_y) > 0:  # else there is nothing to sample
            for chosen in (kind_of_box == index).nonzero()[:, 0].split(CHUNK):
                yield image, chosen, (count_y, count_x)


def _pool(image: Tensor, boxes: Tensor, shifts: Tensor, *, counts: tuple[int, int]) -> Tensor:
    """Pool boxes, in map pixels, that lie in one image.

    Shapes:
        (C, H, W), (K, 4), (K, 2, h, w) -> (K, C, h, w)
    """
    (channels, height, width), bins = image.shape, shifts.shape[2:]
    y = _samples(boxes[:, 1::2], shifts[:, 1], axis=0, count=counts[0])[..., :, None]
    x = _samples(boxes[:, 0::2], shifts[:, 0], axis=1, count=counts[1])[..., None, :]
    # A sample less than a pixel outside takes the value at the border, one further away is zero.
    is_inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    x, y = torch.broadcast_tensors((2 * x + 1) / width - 1, (2 * y + 1) / height - 1)
    grid = torch.stack([x, y], -1)
    samples = F.grid_sample(
        image[None],
        grid.reshape(1, -1, counts[0] * counts[1], 2),
        padding_mode='border',
        align_corners=False,
    )
    samples = samples.view(channels, len(boxes), *bins, *counts) * is_inside
    return samples.mean((-1, -2)).transpose(0, 1)


def _samples(ends: Tensor, shifts: Tensor, *, axis: int, count: int) -> Tensor:
    """Coordinates of the samples along one axis.

    Shapes:
        (K, 2), (K, h, w) -> (K, h, w, n)
    """
    start, side = ends[:, :1], ends[:, 1:] - ends[:, :1]
    num_bins = shifts.shape[1 + axis]
    fractions = torch.arange(count * num_bins, device=ends.device, dtype=ends.dtype)
    fractions = (fractions + 0.5) / (count * num_bins)
    centres = (start + side * fractions).unflatten(1, (num_bins, count))
    return centres.unsqueeze(2 - axis) + (side[:, :, None] * shifts)[..., None]
