"""Every operator of mmcv that a model of mmdet, mmseg or mmpretrain uses, against mmcv's numbers.

``python tests/mmcv_operators.py`` writes the table of ``docs/operators.md``. The numbers are those
of mmcv's tests (``tests/test_ops`` and ``tests/data`` of mmcv 2.2, Apache 2.0): short ones stand
here, arrays in ``golden/mmcv_operators.npz``. Of CARAFE's it holds half of the channels of one
image, of the spatial attention's one image.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from swinv2_mm.ops import ensure_ops

ensure_ops()

import mmcv.ops  # noqa: E402
from mmcv.ops.multi_scale_deform_attn import (  # noqa: E402
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from mmengine.registry import MODELS  # noqa: E402

DOCUMENT = Path(__file__).parents[1] / 'docs/operators.md'
LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
VALUES = np.load(Path(__file__).with_name('golden') / 'mmcv_operators.npz')

Errors = tuple[float, float | None]
TOLERANCE = 1e-5


class Operator(NamedTuple):
    """An operator with its check.

    Attributes:
        names: What stands for it in ``mmcv.ops`` or in its registry.
        reference: Test of mmcv, or what else the numbers come from.
        errors: Returns those of forward and gradients, relative to the largest value expected.
    """

    names: tuple[str, ...]
    reference: str
    errors: Callable[[], Errors]


def value(name: str) -> Tensor:
    array = VALUES[name]
    return torch.from_numpy(array.astype(np.int64 if array.dtype.kind in 'iu' else array.dtype))


def distance(actual: object, expected: object) -> float:
    actual, expected = (torch.as_tensor(tensor).detach().double() for tensor in (actual, expected))
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def slope_error(function: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Gradients against central differences along random directions, in float64."""
    leaves = [tensor.detach().double().requires_grad_() for tensor in inputs]
    generator = torch.Generator().manual_seed(1)
    out = function(*leaves)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad((out * weights).sum(), leaves)
    errors, step = [], 1e-6
    for place, grad in enumerate(grads):
        direction = torch.randn(grad.shape, generator=generator, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            moved = [leaf.detach() for leaf in leaves]
            moved[place] = moved[place] + sign * step * direction
            ends.append((function(*moved) * weights).sum())
        errors.append(distance((grad * direction).sum(), (ends[0] - ends[1]) / (2 * step)))
    return max(errors)


# --- suppression --------------------------------------------------------------------------------

BOXES = torch.tensor([[6.0, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]])
SCORES = torch.tensor([0.6, 0.9, 0.7, 0.2])


def nms() -> Errors:
    dets, kept = mmcv.ops.nms(BOXES, SCORES, iou_threshold=0.3, offset=0)
    assert kept.tolist() == [1, 0, 3]
    expected = torch.cat([BOXES, SCORES[:, None]], 1)[[1, 0, 3]]
    settings = {'type': 'nms', 'iou_threshold': 0.7, 'score_threshold': 0.5, 'max_num': 100}
    for split in ({}, {'split_thr': 100}):
        _, batched = mmcv.ops.batched_nms(
            *(value(f'batched_nms_{name}') for name in ('boxes', 'scores', 'idxs')),
            {**settings, **split},
        )
        assert torch.equal(batched, value('batched_nms_keep')[:100])
    return distance(dets, expected), None


def soft_nms() -> Errors:
    expected = {
        'linear': ([1, 0, 2, 3], [0.9, 0.6, 0.29024392, 0.2]),
        'gaussian': ([1, 0, 2, 3], [0.9, 0.59630775, 0.35275510, 0.18650459]),
        'naive': ([1, 0, 3], [0.9, 0.6, 0.2]),
    }
    errors = []
    for method, (places, scores) in expected.items():
        dets, kept = mmcv.ops.soft_nms(
            BOXES, SCORES, iou_threshold=0.3, sigma=0.5, min_score=0.01, method=method
        )
        assert kept.tolist() == places
        errors.append(distance(dets[:, 4], torch.tensor(scores)))
    return max(errors), None


def nms_match() -> Errors:
    dets = torch.tensor(
        [[49.1, 32.4, 51.0, 35.9, 0.9], [49.3, 32.9, 51.0, 35.3, 0.9],
         [35.3, 11.5, 39.9, 14.5, 0.4], [35.2, 11.7, 39.7, 15.7, 0.3]]
    )  # fmt: skip
    groups = mmcv.ops.nms_match(dets, 0.6)
    kept = mmcv.ops.nms(dets[:, :4].contiguous(), dets[:, 4].contiguous(), 0.6)[1]
    assert {int(group[0]) for group in groups} == set(kept.tolist())
    of_numpy = mmcv.ops.nms_match(dets.numpy(), 0.6)
    assert [g.tolist() for g in groups] == [g.tolist() for g in of_numpy] == [[0, 1], [2, 3]]
    assert mmcv.ops.nms_match(np.array([]), 0.6) == []
    return 0.0, None


def line_nms() -> Errors:
    """Lanes at random, against loops over them."""
    generator = torch.Generator().manual_seed(0)
    lanes = torch.rand(60, 77, generator=generator)
    lanes[:, 4] = torch.randint(0, 60, (60,), generator=generator)
    lanes[:, 5:] = torch.rand(60, 1, generator=generator) * 300 + 20 * lanes[:, 5:]
    scores = torch.rand(60, generator=generator)

    def is_near(a: list[float], b: list[float]) -> bool:
        starts = [int(lane[2] * 71 + 0.5) for lane in (a, b)]
        ends = [start + int(lane[4]) - 1 for start, lane in zip(starts, (a, b), strict=True)]
        common = range(max(starts), min(*ends, 71) + 1)
        return sum(abs(a[5 + i] - b[5 + i]) for i in common) < 50 * len(common)

    kept: list[int] = []
    rows = lanes.tolist()
    for lane in scores.argsort(descending=True).tolist():
        if not any(is_near(rows[other], rows[lane]) for other in kept):
            kept.append(lane)
    found, count, parents = mmcv.ops.line_nms(lanes, scores, 50.0, 200)
    assert 5 < count == len(kept) < 55
    assert found[:count].tolist() == kept and not found[count:].any()
    assert parents.min() == 1 and [int(parents[lane]) for lane in kept] == [*range(1, count + 1)]
    assert int(mmcv.ops.line_nms(lanes, scores, 50.0, 3)[1]) == 3
    return 0.0, None


# --- pooling ------------------------------------------------------------------------------------

SQUARE = [[1.0, 2], [3, 4]]
ROI_MAPS = (
    [[SQUARE]],
    [[SQUARE, [[4.0, 3], [2, 1]]]],
    [[[[1.0, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]]],
)
# Means of four samples a bin, and largest values, with the gradients of their sums.
EDGE_GRAD = [[3.0625, 0.4375], [0.4375, 0.0625]]
MEANS = (
    ([[[[1, 1.25], [1.5, 1.75]]]], [[EDGE_GRAD]]),
    ([[[[1, 1.25], [1.5, 1.75]], [[4, 3.75], [3.5, 3.25]]]], [[EDGE_GRAD, EDGE_GRAD]]),
    (
        [[[[1.9375, 4.75], [7.5625, 10.375]]]],
        [[[[0.47265625, 0.4296875, 0.4296875, 0.04296875],
           [0.4296875, 0.390625, 0.390625, 0.0390625],
           [0.4296875, 0.390625, 0.390625, 0.0390625],
           [0.04296875, 0.0390625, 0.0390625, 0.00390625]]]],
    ),
)  # fmt: skip
LARGEST = (
    ([[SQUARE]], [[[[1.0, 1], [1, 1]]]]),
    ([[SQUARE, [[4.0, 3], [2, 1]]]], [[[[1.0, 1], [1, 1]]] * 2]),
    ([[[[4.0, 8], [12, 16]]]], [[[[0.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]]]),
)


def pooled(pool: Callable[[Tensor, Tensor], Tensor], expected: tuple) -> Errors:
    forward, backward = [], []
    for image, (out, grad) in zip(ROI_MAPS, expected, strict=True):
        x = torch.tensor(image, requires_grad=True)
        side = x.shape[-1] - 1.0
        found = pool(x, torch.tensor([[0, 0, 0, side, side]]))
        forward.append(distance(found, out))
        backward.append(
            distance(torch.autograd.grad(found.sum(), x)[0].reshape(-1), np.ravel(grad))
        )
    return max(forward), max(backward)


def roi_align() -> Errors:
    return pooled(lambda x, rois: mmcv.ops.roi_align(x, rois, 2, 1.0, 2, 'avg', True), MEANS)


def roi_pool() -> Errors:
    return pooled(lambda x, rois: mmcv.ops.roi_pool(x, rois, 2, 1.0), LARGEST)


def deform_roi_pool() -> Errors:
    """mmcv's numbers, without offsets; with offsets, against differences."""
    from mmcv.ops import DeformRoIPoolPack, ModulatedDeformRoIPoolPack, deform_roi_pool

    def pack(x: Tensor, rois: Tensor) -> Tensor:
        return DeformRoIPoolPack((2, 2), x.shape[1], 8, sampling_ratio=2)(x, rois)

    def half_pack(x: Tensor, rois: Tensor) -> Tensor:  # the modulation starts at one half
        return 2 * ModulatedDeformRoIPoolPack((2, 2), x.shape[1], 8, sampling_ratio=2)(x, rois)

    found = [pooled(module, MEANS) for module in (pack, half_pack)]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 9, 11, generator=generator)
    rois = torch.tensor([[0, 1.3, 0.7, 8.2, 5.1], [1, 0, 2, 9, 8], [1, 4, 4, 4, 4]])
    offset = torch.randn(3, 2, 2, 3, generator=generator)
    gradients = [
        slope_error(
            lambda x, offset, n=n: deform_roi_pool(x, rois.double(), offset, (2, 3), 1.0, n, 0.3),
            x,
            offset,
        )
        for n in (0, 2)
    ]
    return max(error[0] for error in found), max(*(error[1] for error in found), *gradients)


# --- convolution, upsampling --------------------------------------------------------------------


def modulated_convolution() -> Errors:
    module = mmcv.ops.ModulatedDeformConv2dPack(
        1, 1, kernel_size=(2, 2), stride=1, padding=1, deform_groups=1, bias=False
    )
    module.weight.data.fill_(1.0)
    x = torch.tensor([[[[1.0, 2, 3]] * 3]], requires_grad=True)
    out = module(x)
    out.sum().backward()
    edge, middle = [0.5, 1.5, 2.5, 1.5], [1.0, 3, 5, 3]
    offset_weight = [
        [[-7, -4], [0, 0]], [[-9, 7.5], [-6, 5]], [[-4, -7], [0, 0]], [[-7.5, -9], [-5, -6]],
        [[-7, -4], [-7, -4]], [[-6, 5], [-9, 7.5]], [[-4, -7], [-4, -7]], [[-5, -6], [-7.5, -9]],
        [[10.5, 6], [7, 4]], [[6, 10.5], [4, 7]], [[7, 4], [10.5, 6]], [[4, 7], [6, 10.5]],
    ]  # fmt: skip
    offset_bias = [-3, -1.5] * 4 + [4.5] * 4
    gradients = (
        distance(x.grad, torch.full_like(x, 2.0)),
        distance(module.weight.grad, torch.full((1, 1, 2, 2), 9.0)),
        distance(module.conv_offset.weight.grad[:, 0], offset_weight),
        distance(module.conv_offset.bias.grad, offset_bias),
    )
    return distance(out[0, 0], [edge, middle, middle, edge]), max(gradients)


def deformable_convolution() -> Errors:
    module = mmcv.ops.DeformConv2dPack(1, 1, kernel_size=2, stride=1, padding=0, im2col_step=2)
    weights = [
        [0.1, 0.4, 0.6, 0.1], [0.3, 0.2, 0.1, 0.3], [0.5, 0.5, 0.2, 0.8], [0.8, 0.3, 0.9, 0.1],
        [0.3, 0.1, 0.2, 0.5], [0.3, 0.7, 0.5, 0.3], [0.6, 0.2, 0.5, 0.3], [0.4, 0.1, 0.8, 0.4],
    ]  # fmt: skip
    batch = 10
    with torch.no_grad():
        module.conv_offset.weight.copy_(torch.tensor(weights).view(8, 1, 2, 2))
        module.conv_offset.bias.copy_(torch.tensor([0.7, 0.1, 0.8, 0.5, 0.6, 0.5, 0.4, 0.7]))
        module.weight.copy_(torch.tensor([0.4, 0.2, 0.1, 0.9]).view(1, 1, 2, 2))
    x = (
        torch.tensor([[[[1.0, 2, 3], [0, 1, 2], [3, 5, 2]]]])
        .repeat(batch, 1, 1, 1)
        .requires_grad_()
    )
    out = module(x)
    out.sum().backward()
    x_grad = [[-0.666, 0.204, 0], [0.030, -0.416, 0.012], [0, 0.252, 0.129]]
    offset_weight = [
        [1.44, 2.88, 0, 1.44], [-0.72, -1.44, 0, -0.72], [0] * 4, [0] * 4,
        [-0.10, -0.20, 0, -0.10], [-0.08, -0.16, 0, -0.08], [-0.54, -1.08, 0, -0.54],
        [-0.54, -1.08, 0, -0.54],
    ]  # fmt: skip
    offset_bias = [1.44, -0.72, 0, 0, -0.10, -0.08, -0.54, -0.54]
    gradients = (
        distance(x.grad, torch.tensor([[x_grad]]).expand_as(x)),
        distance(module.conv_offset.weight.grad.view(8, 4) / batch, offset_weight),
        distance(module.conv_offset.bias.grad / batch, offset_bias),
        distance(module.weight.grad.view(4) / batch, [3.62, 0, 0.40, 0.18]),
    )
    expected = torch.tensor([[[[1.65, 0], [0, 0]]]]).expand_as(out)
    return distance(out, expected), max(gradients)


def switchable_convolution() -> Errors:
    """mmcv tests its shape; deformable and, with zero offsets, plain are one."""
    torch.manual_seed(0)
    module = mmcv.ops.SAConv2d(3, 4, kernel_size=3, padding=1, use_deform=True).double()
    plain = mmcv.ops.SAConv2d(3, 4, kernel_size=3, padding=1).double()
    plain.load_state_dict(module.state_dict(), strict=False)
    x = torch.rand(1, 3, 13, 13, dtype=torch.float64)
    error = distance(module(x), plain(x))
    for layer in (module.offset_s, module.offset_l):
        torch.nn.init.normal_(layer.bias, std=0.3)
    return error, slope_error(module, x)


def masked_convolution() -> Errors:
    module = mmcv.ops.MaskedConv2d(3, 3, 3, 1, 1)
    module.weight = torch.nn.Parameter(value('masked_conv2d_weight').float())
    module.bias = torch.nn.Parameter(value('masked_conv2d_bias').float())
    x, mask = (value(f'masked_conv2d_{name}').float() for name in ('input', 'mask'))
    return distance(module(x, mask), value('masked_conv2d_output')), None


def carafe() -> Errors:
    features, masks = (value(f'carafe_{name}').requires_grad_() for name in ('feat', 'mask'))
    out = mmcv.ops.CARAFE(5, 2, 2)(features, masks)
    grads = torch.autograd.grad(out.sum(), (features, masks))
    errors = [
        distance(grad, value(f'carafe_{name}_grad'))
        for grad, name in zip(grads, ('feat', 'mask'), strict=True)
    ]
    return distance(out, value('carafe_output')), max(errors)


# --- attention, normalisation, loss -------------------------------------------------------------


def psa_mask() -> Errors:
    forward, backward = [], []
    for kind in ('collect', 'distribute'):
        module = mmcv.ops.PSAMask(kind, (4, 4))
        forward.append(distance(module(value('psa_input')), value(f'psa_{kind}')))
        backward.append(slope_error(module, value('psa_input')))
    return max(forward), max(backward)


def deformable_attention() -> Errors:
    shapes = torch.tensor([(6, 4), (3, 2)])
    starts = torch.tensor([0, 24])
    torch.manual_seed(3)
    maps = torch.rand(1, 30, 2, 2) * 0.01
    places = torch.rand(1, 2, 2, 2, 2, 2)
    weights = torch.rand(1, 2, 2, 2, 2) + 1e-5
    weights /= weights.sum(-1, keepdim=True).sum(-2, keepdim=True)

    def attend(maps: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        return MultiScaleDeformableAttnFunction.apply(maps, shapes, starts, places, weights, 2)

    expected = multi_scale_deformable_attn_pytorch(maps, shapes, places, weights)
    error = distance(attend(maps, places, weights), expected)
    return error, slope_error(attend, maps, places, weights)


def synchronised_norm() -> Errors:
    """In one process, against torch, as mmcv does; the module itself asks for a process group."""
    from mmcv.ops.sync_bn import SyncBatchNormFunction

    torch.manual_seed(9)
    x, grad = torch.rand(2, 16, 3, 2, 3).unbind()
    plain = torch.nn.BatchNorm2d(3)
    weight, bias = torch.tensor([0.2, 0.5, 0.7]), torch.zeros(3)
    plain.weight.data.copy_(weight)
    mean, var = torch.zeros(3), torch.ones(3)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    out = SyncBatchNormFunction.apply(
        leaves[0], mean, var, *leaves[1:], 0.1, 1e-5, None, 1, 'default'
    )
    found = torch.autograd.grad(out, leaves, grad)
    leaf = x.clone().requires_grad_()
    expected = plain(leaf)
    wanted = torch.autograd.grad(expected, (leaf, plain.weight, plain.bias), grad)
    forward = ((out, expected), (mean, plain.running_mean), (var, plain.running_var))
    return (
        max(distance(*pair) for pair in forward),
        max(distance(*pair) for pair in zip(found, wanted, strict=True)),
    )


def focal_loss() -> Errors:
    cases = (
        ([[1.0, 0], [0, 1]], [0, 1], 0.13562961,
         [[-0.00657264, 0.11185755], [0.11185755, -0.00657264]]),
        ([[1.0, 0, -1], [0, 1, 2]], [2, 1], 1.10251057,
         [[0.28808805, 0.11185755, -0.09602935], [0.11185755, -0.00657264, 0.40376765]]),
        ([[1e-6, 2e-6, 3e-6], [4e-6, 5e-5, 6e-4], [7e-3, 8e-2, 9e-1]], [1, 2, 0], 0.42287254,
         [[0.07457182, -0.02485716, 0.07457201], [0.07457211, 0.07457669, -0.02483728],
          [-0.02462499, 0.08277918, 0.18050370]]),
    )  # fmt: skip
    forward, backward = [], []
    for logits, target, loss, grad in cases:
        x = torch.tensor(logits, requires_grad=True)
        found = mmcv.ops.sigmoid_focal_loss(x, torch.tensor(target), 2.0, 0.25, None, 'mean')
        forward.append(distance(found, loss))
        backward.append(distance(torch.autograd.grad(found, x)[0], grad))
    return max(forward), max(backward)


OPERATORS = {
    'NMS': Operator(('nms', 'batched_nms'), 'test_nms.py', nms),
    'soft-NMS': Operator(('soft_nms',), 'test_nms.py', soft_nms),
    'groups of NMS': Operator(('nms_match',), 'test_nms.py', nms_match),
    'NMS of lanes': Operator(('line_nms',), 'none; loops over lanes', line_nms),
    'RoIAlign': Operator(('RoIAlign', 'roi_align'), 'test_roi_align.py', roi_align),
    'RoI pooling': Operator(('RoIPool',), 'test_roi_pool.py', roi_pool),
    'deformable RoI pooling': Operator(
        ('DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack'), 'test_deform_roi_pool.py',
        deform_roi_pool,
    ),
    'deformable convolution': Operator(
        ('DeformConv2d', 'deform_conv2d', 'DeformConv2dPack', 'DCN'), 'test_deform_conv.py',
        deformable_convolution,
    ),
    'modulated deformable convolution (DCNv2)': Operator(
        ('ModulatedDeformConv2d', 'ModulatedDeformConv2dPack', 'DCNv2'),
        'test_modulated_deform_conv.py', modulated_convolution,
    ),
    'switchable atrous convolution': Operator(
        ('SAC',), 'test_saconv.py; plain convolution', switchable_convolution
    ),
    'masked convolution': Operator(('MaskedConv2d',), 'test_masked_conv2d.py', masked_convolution),
    'CARAFE': Operator(('CARAFEPack', 'carafe'), 'test_carafe.py', carafe),
    'point-wise spatial attention': Operator(('PSAMask',), 'test_psa_mask.py', psa_mask),
    'multi-scale deformable attention': Operator(
        ('MultiScaleDeformableAttention',), 'test_ms_deformable_attn.py', deformable_attention
    ),
    'synchronised batch norm': Operator(('MMSyncBN',), 'test_syncbn.py', synchronised_norm),
    'sigmoid focal loss': Operator(('sigmoid_focal_loss',), 'test_focal_loss.py', focal_loss),
}  # fmt: skip
# Used, but plain torch in mmcv itself.
PLAIN = {
    'ConcatCell', 'CornerPool', 'CrissCrossAttention', 'GlobalPoolingCell', 'SumCell',
    'SimpleRoIAlign', 'point_sample', 'rel_roi_point_to_rel_img_point',
}  # fmt: skip


# --- who needs them -----------------------------------------------------------------------------


def users() -> dict[str, set[str]]:
    """Where the libraries' models and configs use each name of ``mmcv.ops`` or of its registry."""
    found = defaultdict(set)
    registered = {
        name for name, kind in MODELS.module_dict.items() if kind.__module__.startswith('mmcv.ops')
    }
    names = '|'.join(sorted(registered | set(mmcv.ops.__all__)))
    by_type = re.compile(rf"""['"]?type['"]?\s*[=:]\s*['"]({names})['"]""")
    for library in LIBRARIES:
        root = Path(find_spec(library).submodule_search_locations[0])
        for path in sorted((root / 'models').rglob('*.py')):
            source = path.read_text()
            where = f'{library}: {path.stem}'
            for name in _imported(source):
                found[name].add(where)
            for match in by_type.finditer(source):
                found[match[1]].add(where)
        for path in sorted((root / '.mim/configs').rglob('*.py')):
            family = path.relative_to(root / '.mim/configs').parts[0]
            for match in by_type.finditer(path.read_text()):
                found[match[1]].add(f'{library}: {family}')
    return {name: places for name, places in found.items() if name not in _TORCH}


# Names of mmcv.ops that are torch's classes where they are a type in a config.
_TORCH = {'Conv2d', 'ConvTranspose2d', 'Linear', 'MaxPool2d', 'SyncBatchNorm', 'SparseConv2d'}


def _imported(source: str) -> Iterator[str]:
    if 'mmcv.ops' not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmcv.ops'):
            yield from (alias.name for alias in node.names)


def table() -> list[str]:
    places = users()
    lines = [
        '| operator | needed by | numbers from | forward | gradients |',
        '|---|---|---|---|---|',
    ]
    for title, operator in OPERATORS.items():
        by = defaultdict(list)
        for where in sorted(set().union(*(places.get(name, set()) for name in operator.names))):
            library, _, name = where.partition(': ')
            by[library].append(name)
        needed = '; '.join(f'{library}: {_some(names)}' for library, names in by.items())
        errors = ['-' if error is None else f'{error:.0e}' for error in operator.errors()]
        errors = ['0' if error == '0e+00' else error for error in errors]
        cells = (title, needed or 'no model', operator.reference, *errors)
        lines.append(f'| {" | ".join(cells)} |')
        print(lines[-1], flush=True)
    return lines


def _some(names: list[str], *, most: int = 4) -> str:
    rest = len(names) - most
    return ', '.join(names[:most]) + (f' and {rest} more' if rest > 0 else '')


def rows_of_document() -> list[str]:
    """Titles of the rows of the document."""
    text = re.search(r'<!-- table.*?-->(.*)<!-- end of table', DOCUMENT.read_text(), re.DOTALL)
    return [line.strip('| ').split(' | ')[0] for line in text[1].strip().splitlines()[2:]]


if __name__ == '__main__':
    torch.set_num_threads(1)
    head, rest = DOCUMENT.read_text().split('<!-- end of table')
    head = re.sub(r'(<!-- table[^>]*-->\n).*', r'\1', head, flags=re.DOTALL)
    DOCUMENT.write_text(head + '\n'.join(table()) + '\n<!-- end of table' + rest)
