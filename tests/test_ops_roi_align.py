"""RoIAlign of the stand-in, through mmcv, against torchvision and finite differences."""

import sys

import pytest
import torch
import torchvision

from swinv2_mm.ops import ensure_ops

pytest.importorskip('mmcv')
ensure_ops()

from mmcv.ops import RoIAlign, roi_align  # noqa: E402

from swinv2_mm.ops import roi_align as stand_in_roi_align  # noqa: E402
from swinv2_mm.ops.stand_in import StandIn, build  # noqa: E402

needs_compiled_mmcv = pytest.mark.skipif(
    isinstance(sys.modules['mmcv._ext'], StandIn), reason='mmcv is installed without compiled ops'
)

MAP = (2, 3, 7, 9)  # B, C, H, W
# Image, x1, y1, x2, y2 on the map.
ROIS = torch.tensor(
    [
        [0, 1.3, 0.7, 5.2, 4.9],  # inside
        [1, 0.0, 0.0, 8.9, 6.9],  # nearly all
        [0, -3.5, -2.2, 3.1, 2.6],  # over the upper left border
        [1, 6.4, 4.3, 14.0, 11.5],  # over the lower right border
        [0, 20.0, 20.0, 25.0, 25.0],  # outside
        [1, 4.2, 3.3, 4.2, 3.3],  # empty
        [0, 4.2, 1.0, 4.2, 6.0],  # no width
        [1, 2.6, 2.1, 2.9, 2.3],  # less than a pixel
        [0, -0.9, -0.9, 0.2, 0.1],  # samples between -1 and 0 count as the border
    ],
    dtype=torch.float64,
)


@pytest.fixture(autouse=True)
def through_the_stand_in(monkeypatch):
    """What is tested is ours, even where mmcv is compiled."""
    monkeypatch.setattr(sys.modules['mmcv.ops.roi_align'], 'ext_module', build())


def random_map(*, dtype=torch.float64, requires_grad=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(MAP, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_(requires_grad)


@pytest.mark.parametrize('scale', [1.0, 0.5, 0.3])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_values_and_gradients(aligned, ratio, scale):
    rois = ROIS.clone()
    rois[:, 1:] /= scale
    x, y = random_map(), random_map()
    grad = torch.randn(len(rois), MAP[1], 3, 2, dtype=torch.float64)

    out = roi_align(x, rois, (3, 2), scale, ratio, 'avg', aligned)
    expected = torchvision.ops.roi_align(y, rois, (3, 2), scale, ratio, aligned)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    assert expected[0].abs().max() > 0.1

    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-10)


def test_numerical_gradient():
    x = random_map()
    assert torch.autograd.gradcheck(lambda x: roi_align(x, ROIS, 2, 1.0, 0, 'avg', True), (x,))


def test_single_precision():
    x, y = random_map(dtype=torch.float32), random_map(dtype=torch.float32)
    out = roi_align(x, ROIS.float(), 3, 1.0, 0, 'avg', True)
    expected = torchvision.ops.roi_align(y.double(), ROIS, 3, 1.0, 0, aligned=True).float()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    half = random_map(dtype=dtype)
    full = half.detach().float().requires_grad_()
    rois = ROIS.to(dtype)
    grad = torch.randn(len(rois), MAP[1], 7, 7).to(dtype)

    out = roi_align(half, rois, 7, 0.5, 0, 'avg', True)
    expected = roi_align(full, rois.float(), 7, 0.5, 0, 'avg', True)
    assert out.dtype == dtype and torch.equal(out, expected.to(dtype))

    out.backward(grad)
    expected.backward(grad.float())
    assert half.grad.dtype == dtype and torch.equal(half.grad, full.grad.to(dtype))


def test_map_and_boxes_may_lie_anywhere_in_memory():
    x = random_map(requires_grad=False)
    expected = roi_align(x, ROIS, 3, 1.0, 2, 'avg', True)

    last = x.clone(memory_format=torch.channels_last).requires_grad_()
    strided = torch.zeros(5, 2 * len(ROIS), dtype=torch.float64).t()[::2].copy_(ROIS)
    assert not last.is_contiguous() and not strided.is_contiguous()
    out = roi_align(last, strided, 3, 1.0, 2, 'avg', True)
    assert torch.equal(out, expected)

    # An expanded gradient has stride 0.
    out.sum().backward()
    dense = x.clone().requires_grad_()
    roi_align(dense, ROIS, 3, 1.0, 2, 'avg', True).backward(torch.ones_like(expected))
    torch.testing.assert_close(last.grad, dense.grad)


@pytest.mark.parametrize('shape', [MAP, (0, 3, 7, 9)])
def test_no_boxes(shape):
    x = torch.zeros(shape, requires_grad=True)
    out = roi_align(x, torch.zeros(0, 5), (3, 2), 1.0, 0, 'avg', True)
    assert out.shape == (0, 3, 3, 2)
    out.sum().backward()
    assert x.grad.shape == shape and not x.grad.any()


def test_module():
    layer = RoIAlign(output_size=(3, 2), spatial_scale=0.5, sampling_ratio=2, aligned=False)
    x = random_map(requires_grad=False)
    expected = torchvision.ops.roi_align(x, ROIS, (3, 2), 0.5, 2, aligned=False)
    torch.testing.assert_close(layer(x, ROIS), expected)


def test_max_pooling_is_refused():
    with pytest.raises(NotImplementedError, match='pool_mode'):
        roi_align(random_map(), ROIS, 2, 1.0, 0, 'max', True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_agrees(dtype):
    results = []
    for device in ('cpu', 'cuda'):
        x = random_map(dtype=dtype, requires_grad=False).to(device).requires_grad_()
        out = roi_align(x, ROIS.to(dtype).to(device), 3, 0.5, 0, 'avg', True)
        out.square().sum().backward()
        results.append((out.cpu(), x.grad.cpu()))
    # The last bit of half precision: sums are taken in another order.
    rtol = 1e-5 if dtype == torch.float32 else 1e-2
    for cpu, cuda in zip(*results, strict=True):
        assert cuda.dtype == dtype
        torch.testing.assert_close(cuda, cpu, rtol=rtol, atol=rtol / 10)


@needs_compiled_mmcv
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_is_the_compiled_one(aligned, ratio):
    from mmcv import _ext

    settings = dict(
        aligned_height=3,
        aligned_width=2,
        spatial_scale=0.5,
        sampling_ratio=ratio,
        pool_mode=1,
        aligned=aligned,
    )
    x = random_map(dtype=torch.float32, requires_grad=False)
    rois, nothing = ROIS.float(), torch.zeros(0)
    grad = torch.randn(len(rois), MAP[1], 3, 2)
    outputs, gradients = [], []
    for module in (_ext, stand_in_roi_align):
        outputs.append(torch.zeros_like(grad))
        module.roi_align_forward(x, rois, outputs[-1], nothing, nothing, **settings)
        gradients.append(torch.zeros_like(x))
        module.roi_align_backward(grad, rois, nothing, nothing, gradients[-1], **settings)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
