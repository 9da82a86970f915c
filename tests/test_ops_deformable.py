"""Deformable attention and convolution of the stand-in, through mmcv, against PyTorch."""

import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision

from swinv2_mm.ops import ensure_ops

pytest.importorskip('mmcv')
ensure_ops()

from mmcv.ops import deform_conv2d, modulated_deform_conv2d  # noqa: E402
from mmcv.ops.multi_scale_deform_attn import (  # noqa: E402
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

from swinv2_mm.ops import deformable_attention, deformable_convolution  # noqa: E402
from swinv2_mm.ops.stand_in import StandIn, build  # noqa: E402

needs_compiled_mmcv = pytest.mark.skipif(
    isinstance(sys.modules['mmcv._ext'], StandIn), reason='mmcv is installed without compiled ops'
)

LEVELS = ((4, 5), (2, 3))


@pytest.fixture(autouse=True)
def through_the_stand_in(monkeypatch):
    """What is tested is ours, even where mmcv is compiled."""
    for name in ('multi_scale_deform_attn', 'deform_conv', 'modulated_deform_conv'):
        monkeypatch.setattr(sys.modules[f'mmcv.ops.{name}'], 'ext_module', build())


# ----------------------------------------------------------------------------- attention


def attention_inputs(*, batch=2, queries=3, heads=2, channels=3, points=2, dtype=torch.float64):
    """value, shapes, starts, locations (some outside the map) and weights."""
    generator = torch.Generator().manual_seed(0)
    pixels = [h * w for h, w in LEVELS]
    value = torch.randn(batch, sum(pixels), heads, channels, generator=generator)
    locations = torch.rand(batch, queries, heads, len(LEVELS), points, 2, generator=generator)
    locations = locations * 1.4 - 0.2
    weights = torch.rand(batch, queries, heads, len(LEVELS), points, generator=generator)
    weights = weights / weights.sum((-1, -2), keepdim=True)
    value, locations, weights = (
        tensor.to(dtype).requires_grad_() for tensor in (value, locations, weights)
    )
    return value, torch.tensor(LEVELS), torch.tensor([0, pixels[0]]), locations, weights


def attend(value, shapes, starts, locations, weights):
    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


def gradients(output, tensors):
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    return torch.autograd.grad(output, tensors, grad)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_attention_is_that_of_mmcv_in_torch(dtype, tolerance):
    value, shapes, starts, locations, weights = attention_inputs(
        queries=50, heads=4, channels=8, points=4, dtype=dtype
    )
    out = attend(value, shapes, starts, locations, weights)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance / 10)

    leaves = (value, locations, weights)
    for grad, expected_grad in zip(
        gradients(out, leaves), gradients(expected, leaves), strict=True
    ):
        assert expected_grad.abs().max() > 0.1
        torch.testing.assert_close(grad, expected_grad, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_attention_in_half_precision_is_computed_in_float32(dtype):
    value, shapes, starts, locations, weights = attention_inputs(dtype=dtype)
    half = (value, locations, weights)
    full = [tensor.detach().float().requires_grad_() for tensor in half]
    out = attend(value, shapes, starts, locations, weights)
    expected = attend(full[0], shapes, starts, full[1], full[2])
    assert out.dtype == dtype and torch.equal(out, expected.to(dtype))

    # The gradient that arrives is in half precision: both must start from the same.
    grad = torch.ones_like(out) / 3
    for got, want in zip(
        torch.autograd.grad(out, half, grad),
        torch.autograd.grad(expected, full, grad.float()),
        strict=True,
    ):
        assert got.dtype == dtype and torch.equal(got, want.to(dtype))


def test_attention_finds_levels_by_their_start():
    value, shapes, starts, locations, weights = attention_inputs()
    expected = attend(value, shapes, starts, locations, weights)
    first = LEVELS[0][0] * LEVELS[0][1]
    swapped = torch.cat([value[:, first:], value[:, :first]], 1)
    starts = torch.tensor([value.shape[1] - first, 0])
    out = attend(swapped, shapes, starts, locations, weights)
    assert torch.equal(out, expected)
    (grad,) = gradients(out, (value,))
    (expected_grad,) = gradients(expected, (value,))
    assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize('empty', [dict(queries=0), dict(batch=0)])
def test_attention_over_nothing(empty):
    value, shapes, starts, locations, weights = attention_inputs(**empty)
    out = attend(value, shapes, starts, locations, weights)
    assert out.shape == (len(value), locations.shape[1], 6)
    for grad, leaf in zip(
        gradients(out, (value, locations, weights)), (value, locations, weights), strict=True
    ):
        assert grad.shape == leaf.shape and not grad.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_attention_on_a_gpu_agrees(dtype):
    results = []
    for device in ('cpu', 'cuda'):
        inputs = [tensor.detach().to(device) for tensor in attention_inputs(dtype=dtype)]
        leaves = [inputs[i].requires_grad_() for i in (0, 3, 4)]
        out = attend(*inputs)
        grads = torch.autograd.grad(out, leaves, torch.ones_like(out))
        results.append([tensor.cpu() for tensor in (out, *grads)])
    # The last bit of half precision: sums are taken in another order.
    rtol = 1e-4 if dtype == torch.float32 else 1e-2
    for cpu, cuda in zip(*results, strict=True):
        assert cuda.dtype == dtype
        torch.testing.assert_close(cuda, cpu, rtol=rtol, atol=rtol / 10)


@needs_compiled_mmcv
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='the compiled op runs on CUDA only')
def test_attention_is_the_compiled_one():
    from mmcv import _ext

    inputs = [tensor.detach().cuda() for tensor in attention_inputs(queries=50, channels=8)]
    value, _, _, locations, weights = inputs
    results = []
    for module in (_ext, deformable_attention):
        out = module.ms_deform_attn_forward(*inputs, im2col_step=64)
        grads = [torch.zeros_like(tensor) for tensor in (value, locations, weights)]
        module.ms_deform_attn_backward(*inputs, torch.ones_like(out), *grads, im2col_step=64)
        results.append([out, *grads])
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


# --------------------------------------------------------------------------- convolution


def convolution_inputs(*, groups=1, deform_groups=1, stride=1, padding=1, dilation=1, batch=1):
    """Map, offsets, modulation, weight, bias."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
        return tensor.requires_grad_()

    kernel = 2
    x = normal(batch, 4, 4, 5)
    weight = normal(4, 4 // groups, kernel, kernel)
    height, width = (
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in (4, 5)
    )
    offset = normal(batch, 2 * deform_groups * kernel**2, height, width)
    mask = normal(batch, deform_groups * kernel**2, height, width)
    return x, offset, mask, weight, normal(4)


def expected_convolution(x, offset, mask, weight, bias, stride, padding, dilation, *groups):
    """That of torchvision, which finds both numbers of groups by the shapes."""
    return torchvision.ops.deform_conv2d(
        x, offset, weight, bias, stride=stride, padding=padding, dilation=dilation, mask=mask
    )


GEOMETRIES = [
    dict(stride=1, padding=1, dilation=1, groups=1, deform_groups=1),
    dict(stride=2, padding=1, dilation=2, groups=2, deform_groups=2),
]


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_modulated_convolution(geometry):
    inputs = convolution_inputs(**geometry)
    out = modulated_deform_conv2d(*inputs, *geometry.values())
    expected = expected_convolution(*inputs, *geometry.values())
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    for grad, expected_grad in zip(
        gradients(out, inputs), gradients(expected, inputs), strict=True
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_plain_convolution(geometry):
    x, offset, _, weight, _ = convolution_inputs(**geometry)
    out = deform_conv2d(x, offset, weight, *geometry.values())
    expected = expected_convolution(x, offset, None, weight, None, *geometry.values())
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    leaves = (x, offset, weight)
    for grad, expected_grad in zip(
        gradients(out, leaves), gradients(expected, leaves), strict=True
    ):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-9)


def test_modulated_convolution_without_bias():
    x, offset, mask, weight, bias = convolution_inputs()
    out = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    full = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    torch.testing.assert_close(out + bias[:, None, None], full)
    leaves = (x, offset, mask, weight)
    for grad, expected_grad in zip(gradients(out, leaves), gradients(full, leaves), strict=True):
        torch.testing.assert_close(grad, expected_grad)


def test_without_offsets_it_is_a_convolution():
    x, offset, _, weight, _ = convolution_inputs(stride=2)
    out = deform_conv2d(x, torch.zeros_like(offset), weight, 2, 1)
    torch.testing.assert_close(out, F.conv2d(x, weight, stride=2, padding=1))


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_offsets_that_are_no_numbers_lie_outside(value):
    x, offset, mask, weight, bias = convolution_inputs()
    with torch.no_grad():
        offset.fill_(value)
    out = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    assert torch.equal(out, bias[:, None, None].expand_as(out))
    for grad in gradients(out, (x, offset, mask, weight)):
        assert not grad.any()
    assert not deform_conv2d(x, offset, weight, 1, 1).any()


def test_offsets_of_a_larger_map_are_read_in_memory_order():
    """What DyHead relies on; see ``_lay_out``."""
    x, _, _, weight, bias = convolution_inputs(batch=2)  # the output is 5 x 6
    generator = torch.Generator().manual_seed(2)
    large = [torch.randn(2, c, 10, 12, generator=generator, dtype=torch.float64) for c in (8, 4)]
    for field in large:
        field.requires_grad_()
    small = [field.reshape(2, -1)[:, : field[0].numel() // 4] for field in large]
    small = [field.unflatten(1, (c, 5, 6)) for field, c in zip(small, (8, 4), strict=True)]

    out = modulated_deform_conv2d(x, *large, weight, bias, 1, 1)
    expected = modulated_deform_conv2d(x, *small, weight, bias, 1, 1)
    assert torch.equal(out, expected)
    for grad, expected_grad in zip(gradients(out, large), gradients(expected, large), strict=True):
        assert torch.equal(grad, expected_grad)


@needs_compiled_mmcv
@pytest.mark.parametrize('larger', [1, 2])
def test_modulated_convolution_is_the_compiled_one(larger):
    from mmcv import _ext

    x, _, _, weight, bias = (tensor.detach().float() for tensor in convolution_inputs(batch=2))
    offset = torch.randn(2, 8, 5 * larger, 6 * larger)
    mask = torch.rand(2, 4, 5 * larger, 6 * larger)
    geometry = dict(
        kernel_h=2,
        kernel_w=2,
        stride_h=1,
        stride_w=1,
        pad_h=1,
        pad_w=1,
        dilation_h=1,
        dilation_w=1,
        group=1,
        deformable_group=1,
        with_bias=True,
    )
    results = []
    for module in (_ext, deformable_convolution):
        out, space = torch.zeros(2, 4, 5, 6), [torch.zeros(0), torch.zeros(0)]
        module.modulated_deform_conv_forward(
            x, weight, bias, space[0], offset, mask, out, space[1], **geometry
        )
        grads = [torch.zeros_like(tensor) for tensor in (x, weight, bias, offset, mask)]
        module.modulated_deform_conv_backward(
            x, weight, bias, space[0], offset, mask, space[1], *grads, out.clone(), **geometry
        )
        results.append([out, *grads])
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
