"""Deformable convolution, plain (Dai et al., 2017) and modulated (Zhu et al., 2019).

Computed by torchvision. No model of ours needs it, but DyHead, TOOD and VFNet do, and they are
often put on a Swin.
"""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from swinv2_mm.core.torch_private import vision_operator

from .precision import compute_dtype

OUTSIDE = -(2.0**15)  # in pixels, further than any map reaches; exact in half precision

# Stride, padding and dilation as (height, width), then groups and groups of the offsets: what
# torchvision takes after the tensors.
Geometry = tuple[int, int, int, int, int, int, int, int]


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the convolution to ``output``; ``ones`` and ``columns`` are unused work space."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    bias = bias if with_bias else weight.new_zeros(len(weight))
    _convolve(input, weight, offset, mask, bias, output, geometry=geometry)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write all gradients to the ``grad_`` buffers."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    grads = _gradients(grad_output, input, weight, offset, mask, geometry=geometry)
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    _lay_back(grad_offset, grads[2])
    _lay_back(grad_mask, grads[3])
    if with_bias:
        grad_bias.copy_(grads[4])


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the convolution to ``output``; ``columns`` and ``ones`` are unused work space."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    bias = weight.new_zeros(len(weight))
    _convolve(input, weight, offset, None, bias, output, geometry=geometry)


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of the map and of the offsets."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = _gradients(gradOutput, input, weight, offset, None, geometry=geometry)
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Write ``scale`` times the gradient of the weight."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The gradients asked for do not depend on the weight's values, only on its shape.
    weight = torch.zeros_like(gradWeight)
    grads = _gradients(gradOutput, input, weight, offset, None, geometry=geometry)
    gradWeight.copy_(scale * grads[1])


def _convolve(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor,
    output: Tensor,
    *,
    geometry: Geometry,
) -> None:
    dtype = compute_dtype(input, weight, offset)
    offset, modulation = _per_output(input, offset, mask, size=output.shape[2:])
    tensors = (tensor.to(dtype) for tensor in (input, weight, offset, modulation, bias))
    output.copy_(torch.ops.torchvision.deform_conv2d(*tensors, *geometry, mask is not None))


def _gradients(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    *,
    geometry: Geometry,
) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias."""
    dtype = compute_dtype(input, weight, offset)
    offset, modulation = _per_output(input, offset, mask, size=grad_output.shape[2:])
    bias = weight.new_zeros(len(weight))
    operands = (grad_output, input, weight, offset, modulation, bias)
    tensors = (tensor.to(dtype) for tensor in operands)
    backward = vision_operator('_deform_conv2d_backward')
    grads = backward(*tensors, *geometry, mask is not None)
    kernel = (weight.shape[2], weight.shape[3])
    grads[2].masked_fill_(_is_outside(offset.to(dtype), kernel=kernel, geometry=geometry), 0)
    return grads


def _is_outside(offset: Tensor, *, kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """Return which samples lie a whole pixel above or left of the map, or further.

    There the samples are zero and mmcv's gradients of offsets, too. torchvision's are those of the
    other side where the distance is exactly a pixel: at a padded border with offsets of zero, as in
    the first step of a training.

    Shapes:
        (B, groups*h*w*2, H, W) -> the same
    """
    stride, padding, dilation = geometry[0:2], geometry[2:4], geometry[4:6]
    offsets = offset.unflatten(1, (-1, *kernel, 2))
    is_outside = torch.zeros_like(offsets[:, :, :, :, 0], dtype=torch.bool)
    for axis in (0, 1):
        places = torch.arange(offset.shape[2 + axis], device=offset.device) * stride[axis]
        taps = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        # Kernel height, kernel width, map height, map width.
        taps = taps.view((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1))
        places = places.view((1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1))
        is_outside |= offsets[:, :, :, :, axis] + (taps + places - padding[axis]) <= -1
    return is_outside.unsqueeze(4).expand_as(offsets).flatten(1, 4)


def _per_output(
    input: Tensor, offset: Tensor, mask: Tensor | None, *, size: torch.Size
) -> tuple[Tensor, Tensor]:
    """Offsets and modulation of exactly the output's size; without a mask, what stands for none.

    Offsets that are no numbers, of a training that diverges, lie outside the map, as in mmcv:
    torchvision reads memory that is not the map's there.
    """
    offset = offset.nan_to_num(nan=OUTSIDE, posinf=OUTSIDE, neginf=OUTSIDE)
    if mask is None:
        return offset, input.new_zeros((len(input), 1))
    return _lay_out(offset, size=size), _lay_out(mask, size=size)


def _lay_out(field: Tensor, *, size: torch.Size) -> Tensor:
    """Read the values of each image, in memory order, as a map of ``size``.

    DyHead hands over offsets of a map of twice the size. The compiled op takes the leading values
    for those of the map it works on, and the released DyHead weights were trained with that.

    Shapes:
        (B, C, H, W) -> (B, C, *size)
    """
    if field.shape[2:] == size:
        return field
    channels = field.shape[1]
    return field.flatten(1)[:, : channels * size.numel()].unflatten(1, (channels, *size))


def _lay_back(buffer: Tensor, grad: Tensor) -> None:
    """Write the gradient of what :func:`_lay_out` read to where it was read."""
    if buffer.shape == grad.shape:
        buffer.copy_(grad)
    else:
        buffer.view(len(buffer), -1)[:, : grad[0].numel()] = grad.flatten(1)
