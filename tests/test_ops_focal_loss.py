"""The sigmoid focal loss of the stand-in, through mmcv's Python API, against torchvision's."""

import math
import sys

import pytest
import torch
import torchvision

from swinv2_mm.ops import ensure_ops

pytest.importorskip('mmcv')
ensure_ops()

from mmcv.ops import sigmoid_focal_loss  # noqa: E402

from swinv2_mm.ops import focal_loss as stand_in_focal_loss  # noqa: E402
from swinv2_mm.ops.stand_in import StandIn, build  # noqa: E402

needs_compiled_mmcv = pytest.mark.skipif(
    isinstance(sys.modules['mmcv._ext'], StandIn), reason='mmcv is installed without compiled ops'
)

NUM_CLASSES = 4


@pytest.fixture(autouse=True)
def through_the_stand_in(monkeypatch):
    """What is tested is ours, even where mmcv is compiled."""
    monkeypatch.setattr(sys.modules['mmcv.ops.focal_loss'], 'ext_module', build())


def inputs(*, dtype=torch.float64):
    """Logits, and targets of which some are background."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(30, NUM_CLASSES, generator=generator, dtype=torch.float64)
    return logits.to(dtype).requires_grad_(), torch.arange(30) % (NUM_CLASSES + 1)


@pytest.mark.parametrize('with_weight', [False, True])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.5, 0.3), (0.0, 0.5)])
def test_values_and_gradients(gamma, alpha, with_weight):
    logits, target = inputs()
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64) if with_weight else None
    loss = sigmoid_focal_loss(logits, target, gamma, alpha, weight, 'none')
    one_hot = torch.nn.functional.one_hot(target, NUM_CLASSES + 1)[:, :NUM_CLASSES].double()
    expected = torchvision.ops.sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma)
    if with_weight:
        expected = expected * torch.cat([weight, weight.new_ones(1)])[target, None]
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)

    (grad,) = torch.autograd.grad(loss.sum(), logits)
    (expected_grad,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-12)


def test_reductions():
    logits, target = inputs()
    loss = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    assert torch.equal(sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'sum'), loss.sum())
    mean = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'mean')
    torch.testing.assert_close(mean, loss.sum() / len(logits))


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 0]), 0.5, 0.25, None, 'none')
    # Entirely right costs nothing, entirely wrong the distance to the boundary.
    torch.testing.assert_close(loss, torch.tensor([[0.0, 0.0], [0.25 * 200, 0.75 * 200]]))
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 0.0], [-0.25, 0.75]]))


def test_half_precision_is_computed_in_float32():
    half, target = inputs(dtype=torch.bfloat16)
    full = half.detach().float().requires_grad_()
    loss = sigmoid_focal_loss(half, target, 2.0, 0.25, None, 'none')
    expected = sigmoid_focal_loss(full, target, 2.0, 0.25, None, 'none')
    assert loss.dtype == torch.bfloat16 and torch.equal(loss, expected.bfloat16())


def test_no_predictions():
    logits = torch.zeros(0, NUM_CLASSES, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, NUM_CLASSES)


def test_is_the_loss_mmdet_computes_without_the_op():
    losses = pytest.importorskip('mmdet.models.losses.focal_loss')
    logits, target = inputs(dtype=torch.float32)
    one_hot = torch.nn.functional.one_hot(target, NUM_CLASSES + 1)[:, :NUM_CLASSES]
    found = losses.sigmoid_focal_loss(logits, target, avg_factor=7.0)
    expected = losses.py_sigmoid_focal_loss(logits, one_hot, avg_factor=7.0)
    torch.testing.assert_close(found, expected)
    assert not math.isclose(found.item(), 0, abs_tol=1e-3)


@needs_compiled_mmcv
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='the compiled op runs on CUDA only')
def test_is_the_compiled_one():
    from mmcv import _ext

    logits, target = (tensor.detach().cuda() for tensor in inputs(dtype=torch.float32))
    results = []
    for module in (_ext, stand_in_focal_loss):
        buffers = [torch.zeros_like(logits), torch.zeros_like(logits)]
        names = ('sigmoid_focal_loss_forward', 'sigmoid_focal_loss_backward')
        for name, buffer in zip(names, buffers, strict=True):
            op = getattr(module, name)
            op(logits, target, logits.new_empty(0), buffer, gamma=2.0, alpha=0.25)
        results.append(buffers)
    for got, want in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
