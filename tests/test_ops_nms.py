"""NMS and soft-NMS of the stand-in, through mmcv's Python API, against torchvision and mmcv."""

import math
import sys

import numpy as np
import pytest
import torch
import torchvision

from swinv2_mm.ops import ensure_ops

pytest.importorskip('mmcv')
ensure_ops()

from mmcv.ops import batched_nms, nms, soft_nms  # noqa: E402

from swinv2_mm.ops import nms as stand_in_nms  # noqa: E402
from swinv2_mm.ops import soft_nms as stand_in_soft_nms  # noqa: E402
from swinv2_mm.ops.stand_in import StandIn, build  # noqa: E402

needs_compiled_mmcv = pytest.mark.skipif(
    isinstance(sys.modules['mmcv._ext'], StandIn), reason='mmcv is installed without compiled ops'
)


@pytest.fixture(autouse=True)
def through_the_stand_in(monkeypatch):
    """What is tested is ours, even where mmcv is compiled."""
    monkeypatch.setattr(sys.modules['mmcv.ops.nms'], 'ext_module', build())


def random_boxes(num_boxes, *, seed=0, extent=25.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num_boxes, 2, generator=generator) * extent
    size = torch.rand(num_boxes, 2, generator=generator) * 30 + 1
    scores = torch.rand(num_boxes, generator=generator)
    return torch.cat([corner, corner + size], 1), scores


def reference_nms(boxes, scores, threshold, offset=0):
    """That of torchvision, whose corners are no pixels."""
    boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, threshold).tolist()


def reference_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset=0):
    overlaps = torchvision.ops.box_iou(*[boxes + boxes.new_tensor([0, 0, offset, offset])] * 2)
    remaining = dict(enumerate(scores.tolist()))
    picked = []
    while remaining:
        best = max(remaining, key=remaining.get)
        picked.append((best, remaining.pop(best)))
        for i in list(remaining):
            overlap = float(overlaps[best, i])
            if method == 'gaussian':
                remaining[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                remaining[i] *= 0 if method == 'naive' else 1 - overlap
            if remaining[i] < min_score:
                del remaining[i]
    return [i for i, _ in picked], [score for _, score in picked]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.7])
def test_nms(threshold, offset, dtype):
    boxes, scores = random_boxes(80)
    expected = reference_nms(boxes, scores, threshold, offset)
    assert 10 < len(expected) < 80

    dets, indices = nms(boxes.to(dtype), scores.to(dtype), threshold, offset=offset)

    assert indices.dtype == torch.long and indices.tolist() == expected
    torch.testing.assert_close(
        dets, torch.cat([boxes, scores[:, None]], 1)[expected].to(dtype), rtol=0, atol=0
    )


def test_nms_of_pixel_boxes_depends_on_the_offset():
    # Side by side at 0, but one shared column of two at 1: IoU 3 / 9.
    boxes = torch.tensor([[0.0, 0, 1, 2], [1, 0, 2, 2]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


def test_nms_score_threshold_and_max_num():
    boxes, scores = random_boxes(80)
    above = (scores > 0.5).nonzero().flatten()
    expected = above[reference_nms(boxes[above], scores[above], 0.4)].tolist()

    assert nms(boxes, scores, 0.4, score_threshold=0.5)[1].tolist() == expected
    assert nms(boxes, scores, 0.4, score_threshold=0.5, max_num=3)[1].tolist() == expected[:3]


def test_nms_keeps_an_overlap_of_exactly_the_threshold():
    half = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 2]])
    # 3 / 5 in float32 lies above 0.6 in float64, where torchvision compares.
    three_fifths = torch.tensor([[0.0, 0, 3, 1], [0, 0, 5, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert nms(half, scores, 0.5)[1].tolist() == [0, 1]
    assert nms(half, scores, 0.499)[1].tolist() == [0]
    assert nms(three_fifths, scores, 0.6)[1].tolist() == [0, 1]
    assert nms(three_fifths, scores, 0.599)[1].tolist() == [0]


def test_nms_of_equal_scores_keeps_the_first():
    boxes, _ = random_boxes(50)
    assert nms(boxes, torch.ones(50), 0.4)[1].tolist() == reference_nms(boxes, torch.ones(50), 0.4)


def test_nms_keeps_empty_boxes():
    boxes = torch.tensor([[5.0, 5, 5, 5]] * 2)
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5)[1].tolist() == [0, 1]


def test_nms_of_numpy():
    boxes, scores = random_boxes(40)
    dets, indices = nms(boxes.numpy(), scores.numpy(), 0.4)
    assert isinstance(dets, np.ndarray) and dets.shape == (len(indices), 5)
    assert indices.tolist() == reference_nms(boxes, scores, 0.4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_nms_of_half_precision_is_computed_in_float32(dtype):
    boxes, scores = (tensor.to(dtype) for tensor in random_boxes(80))
    dets, indices = nms(boxes, scores, 0.4)
    assert dets.dtype == dtype
    assert indices.tolist() == reference_nms(boxes.float(), scores.float(), 0.4)


def test_boxes_may_lie_anywhere_in_memory():
    boxes, scores = random_boxes(60)
    strided = torch.zeros(4, 120).t()[::2]
    strided.copy_(boxes)
    spread = torch.zeros(60, 3)
    spread[:, 1] = scores
    assert not strided.is_contiguous() and not spread[:, 1].is_contiguous()

    assert nms(strided, spread[:, 1], 0.4)[1].tolist() == nms(boxes, scores, 0.4)[1].tolist()
    soft, soft_indices = soft_nms(strided, spread[:, 1], 0.4)
    expected, expected_indices = soft_nms(boxes, scores, 0.4)
    assert torch.equal(soft, expected) and torch.equal(soft_indices, expected_indices)


def test_gradients_pass_through_what_nms_keeps():
    boxes, scores = random_boxes(30)
    boxes.requires_grad_()
    scores.requires_grad_()
    dets, indices = nms(boxes, scores, 0.4)
    dets.sum().backward()
    kept = torch.zeros(30)
    kept[indices] = 1
    assert torch.equal(scores.grad, kept) and torch.equal(boxes.grad, kept[:, None].expand(30, 4))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('min_score', [1e-3, 0.3])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(method, min_score, offset):
    boxes, scores = random_boxes(80)
    given = boxes.clone(), scores.clone()
    indices, lowered = reference_soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)
    assert 10 < len(indices)

    dets, found = soft_nms(boxes, scores, 0.3, 0.5, min_score, method, offset)

    assert found.dtype == torch.long and found.tolist() == indices
    assert torch.equal(dets[:, :4], boxes[indices])
    torch.testing.assert_close(dets[:, 4], torch.tensor(lowered), rtol=1e-5, atol=1e-7)
    assert torch.equal(boxes, given[0]) and torch.equal(scores, given[1])


def test_soft_nms_in_double_precision_stays_there():
    boxes, scores = (tensor.double() for tensor in random_boxes(80))
    indices, lowered = reference_soft_nms(boxes, scores, 0.3, 0.5, 1e-3, 'gaussian')
    dets, found = soft_nms(boxes, scores, 0.3, method='gaussian')
    assert found.tolist() == indices
    torch.testing.assert_close(
        dets[:, 4], torch.tensor(lowered, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_soft_nms_lowers_a_score_at_exactly_the_threshold():
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 2]])
    dets, _ = soft_nms(boxes, torch.tensor([0.9, 0.8]), 0.5, method='linear')
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.4]))


def test_soft_nms_picks_before_it_drops():
    boxes, scores = random_boxes(5)
    _, indices = soft_nms(boxes, scores * 0.01, 0.3, min_score=0.5)
    assert indices.tolist() == [int(scores.argmax())]


def test_soft_nms_of_numpy_and_of_bfloat16():
    boxes, scores = random_boxes(40)
    dets, indices = soft_nms(boxes.numpy(), scores.numpy(), 0.3)
    assert isinstance(dets, np.ndarray)
    assert indices.tolist() == reference_soft_nms(boxes, scores, 0.3, 0.5, 1e-3, 'linear')[0]

    boxes, scores = boxes.bfloat16(), scores.bfloat16()
    dets, indices = soft_nms(boxes, scores, 0.3)
    exact, exact_indices = soft_nms(boxes.float(), scores.float(), 0.3)
    assert torch.equal(indices, exact_indices) and torch.equal(dets, exact.bfloat16())


def test_soft_nms_writes_only_the_rows_it_returns():
    boxes, scores = random_boxes(60)
    dets = torch.full((60, 5), -7.0)
    indices = stand_in_soft_nms.softnms(boxes, scores, dets, 0.3, 0.5, 0.2, 1, 0)
    assert 0 < len(indices) < 60
    assert (dets[: len(indices)] != -7).all() and (dets[len(indices) :] == -7).all()


def test_soft_nms_of_equal_scores_picks_as_compiled_mmcv_does():
    boxes, scores = random_boxes(24)
    _, indices = soft_nms(
        boxes.round(), (scores * 4).round() / 4, 0.3, min_score=0.2, method='naive'
    )
    # Printed by the compiled op of onedl-mmcv 2.3.6; neither input order nor any other simple rule.
    assert indices.tolist() == [4, 17, 0, 5, 23, 22, 13, 20, 3, 14, 16, 7]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_gpu_agrees(dtype):
    boxes, scores = (tensor.to(dtype) for tensor in random_boxes(500))
    for function in (nms, soft_nms):
        expected = function(boxes, scores, 0.4)
        found = function(boxes.cuda(), scores.cuda(), 0.4)
        assert all(
            f.is_cuda and torch.equal(f.cpu(), e) for f, e in zip(found, expected, strict=True)
        )


@pytest.mark.parametrize('function', [nms, soft_nms])
def test_no_boxes(function):
    dets, indices = function(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5) and indices.shape == (0,) and indices.dtype == torch.long


@pytest.mark.parametrize('kind', ['nms', 'soft_nms'])
@pytest.mark.parametrize(
    ('class_agnostic', 'split_thr'), [(False, 10000), (False, 10), (True, 10000)]
)
def test_batched_nms(class_agnostic, split_thr, kind):
    boxes, scores = random_boxes(90)
    labels = torch.arange(90) % 3
    scored = []
    for group in [labels >= 0] if class_agnostic else [labels == c for c in range(3)]:
        index = group.nonzero().flatten()
        if kind == 'nms':
            dets, kept = nms(boxes[index], scores[index], 0.4)
        else:
            dets, kept = soft_nms(boxes[index], scores[index], 0.4, min_score=0.05)
        scored += zip(dets[:, 4].tolist(), index[kept].tolist(), strict=True)
    scored.sort(reverse=True)

    config = dict(type=kind, iou_threshold=0.4, split_thr=split_thr)
    if kind == 'soft_nms':
        config['min_score'] = 0.05
    dets, indices = batched_nms(boxes, scores, labels, config, class_agnostic=class_agnostic)

    assert indices.tolist() == [i for _, i in scored]
    torch.testing.assert_close(dets[:, :4], boxes[indices])
    torch.testing.assert_close(
        dets[:, 4], torch.tensor([s for s, _ in scored]), rtol=1e-5, atol=1e-7
    )


def test_batched_nms_max_num():
    boxes, scores = random_boxes(60)
    labels = torch.arange(60) % 3
    config = dict(type='nms', iou_threshold=0.4)
    dets, indices = batched_nms(boxes, scores, labels, config)
    best, best_indices = batched_nms(boxes, scores, labels, dict(config, max_num=5))
    assert torch.equal(best, dets[:5]) and torch.equal(best_indices, indices[:5])


@needs_compiled_mmcv
@pytest.mark.parametrize('offset', [0, 1])
def test_nms_is_the_compiled_one(offset):
    from mmcv import _ext

    for seed in range(20):
        boxes, scores = random_boxes(200, seed=seed)
        # Integers: overlaps of exactly 0.5 occur. Scores differ: the compiled op sorts equal
        # ones in no particular order.
        boxes = boxes.round()
        for threshold in (0.3, 0.5, 0.7):
            expected = _ext.nms(boxes, scores, iou_threshold=threshold, offset=offset)
            found = stand_in_nms.nms(boxes, scores, iou_threshold=threshold, offset=offset)
            assert torch.equal(found, expected)


@needs_compiled_mmcv
@pytest.mark.parametrize('method', [0, 1, 2])
def test_soft_nms_is_the_compiled_one_down_to_ties(method):
    from mmcv import _ext

    for seed in range(20):
        boxes, scores = random_boxes(200, seed=seed)
        boxes, scores = boxes.round(), (scores * 10).round() / 10
        results = []
        for op in (_ext.softnms, stand_in_soft_nms.softnms):
            dets = torch.zeros(200, 5)
            indices = op(
                boxes,
                scores,
                dets,
                iou_threshold=0.3,
                sigma=0.5,
                min_score=0.05,
                method=method,
                offset=seed % 2,
            )
            results.append((dets[: len(indices)], indices))
        (expected, expected_indices), (found, indices) = results
        assert torch.equal(indices, expected_indices)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
