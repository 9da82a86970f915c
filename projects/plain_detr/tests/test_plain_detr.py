"""The bias, the matching and the queries are those of the paper; the recipe trains and tests."""

import copy
import json
import math

import pytest
import torch
from conftest import ROOT
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from shrinking import as_text, shrink
from tiny_data import write_data
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from projects.plain_detr.plain_detr.boxes import decode_boxes, encode_boxes
from projects.plain_detr.plain_detr.decoder import BoxBias
from swinv2_mm.engine.parameter_rules import is_decayed
from swinv2_mm.errors import UserError

LEAF = ROOT / 'projects/plain_detr/configs/plain-detr_swinv2-s-w16_8xb2-12e_coco.py'
SHAPES = ((64, 128), (128, 64))  # images that are padded to 128 x 128 px
NUM_CLASSES, NUM_REPEATS = 80, 6


@pytest.fixture(scope='module')
def detector():
    tree = shrink(Config.fromfile(LEAF))
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(tree['model'])
    model.init_weights()
    with torch.no_grad():  # the initial ones are zero
        for branch in model.bbox_head.reg_branches:
            branch[-1].weight.normal_(std=0.05)
    return model


@pytest.fixture
def samples():
    samples = []
    for number, shape in enumerate(SHAPES):
        meta = dict(img_shape=shape, ori_shape=shape, batch_input_shape=(128, 128))
        sample = DetDataSample(metainfo=meta | dict(scale_factor=(1.0, 1.0)))
        boxes = torch.tensor([[8.0, 5, 50, 40], [20, 22, 60, 61], [2, 30, 30, 58]])[number:]
        labels = torch.arange(len(boxes))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    return samples


@pytest.fixture
def feature_map(detector):
    return torch.randn(2, detector.embed_dims, 8, 8, generator=torch.manual_seed(1))


@pytest.mark.parametrize('offsets', ['linear', 'log'])
def test_bias_is_that_of_each_pixel(offsets):
    torch.manual_seed(0)
    bias = BoxBias(num_heads=3, hidden_channels=5, offsets=offsets).double()
    boxes = torch.rand(2, 4, 2, dtype=torch.float64).mul(90).repeat(1, 1, 2)
    boxes[..., 2:] += 20
    found = bias(boxes, (4, 6))
    assert found.shape == (2, 3, 4, 24)

    def scaled(offset):
        if offsets == 'linear':
            return offset
        return math.copysign(math.log(abs(offset) + 1, 8), offset)

    for image in range(2):
        for query in range(4):
            left, top, right, bottom = boxes[image, query].tolist()
            for y in range(4):
                for x in range(6):
                    px, py = 16 * (x + 0.5), 16 * (y + 0.5)
                    across = torch.tensor([scaled(left - px), scaled(right - px)]).double()
                    down = torch.tensor([scaled(top - py), scaled(bottom - py)]).double()
                    wanted = bias.cpb_mlp[0](across) + bias.cpb_mlp[1](down)
                    torch.testing.assert_close(
                        found[image, :, query, 6 * y + x], wanted, rtol=1e-6, atol=1e-6
                    )


def test_boxes_from_deltas_and_back():
    references = torch.tensor([[[10.0, 20, 110, 220], [50, 50, 90, 90]]])
    boxes = torch.tensor([[[30.0, 10, 90, 300], [40, 60, 100, 70]]])
    limits = torch.tensor([[[400.0] * 4]])
    found = decode_boxes(references, encode_boxes(references, boxes), limits)
    assert (found - boxes).abs().max() < 1  # sides of references count as 0.1 px longer
    assert decode_boxes(references, torch.full((1, 2, 4), 9.0), limits).max() == 400
    shifted = decode_boxes(references, torch.tensor([0.5, -0.25, 0, math.log(2)]), limits)
    torch.testing.assert_close(shifted[0, 0], torch.tensor([60.0, 0, 160, 270]))


def losses_by_hand(found, boxes, labels):
    """Classification, delta and GIoU loss of an image with repeated annotations."""
    boxes, labels = boxes.repeat(NUM_REPEATS, 1), labels.repeat(NUM_REPEATS)
    p = found.scores.sigmoid()
    focal = 0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
    centre = (found.references[:, :2] + found.references[:, 2:]) / 2
    size = found.references[:, 2:] - found.references[:, :2] + 0.1
    wanted = []
    for box in boxes:
        shift = ((box[:2] + box[2:]) / 2 - centre) / size
        wanted.append(torch.cat([shift, ((box[2:] - box[:2]) / size).log()], 1))
    distance = (found.deltas[:, None] - torch.stack(wanted, 1)).abs().sum(-1)
    overlap = generalized_box_iou(found.bboxes, boxes)
    cost = 2 * focal[:, labels] + distance - 2 * overlap
    rows, columns = linear_sum_assignment(cost.detach())
    hot = torch.zeros_like(found.scores)
    hot[rows, labels[columns]] = 1
    return (
        2 * sigmoid_focal_loss(found.scores, hot, reduction='sum'),
        distance[rows, columns].sum(),
        2 * (1 - overlap[rows, columns]).sum(),
        len(rows),
    )


def test_one_to_many_loss_repeats_the_annotations(detector, feature_map, samples):
    detector.train()
    arguments = detector.forward_transformer((feature_map,), samples)
    losses = detector.bbox_head.loss(**arguments, batch_data_samples=samples)
    num, last = arguments['num_one_to_one'], arguments['outputs'][-1]
    assert num == detector.num_queries == 20 and last['scores'].shape[1] > 50
    sums = torch.zeros(4)
    for image, sample in enumerate(samples):
        found = InstanceData(**{key: value[image, num:] for key, value in last.items()})
        gt = sample.gt_instances
        sums += torch.stack([*map(torch.as_tensor, losses_by_hand(found, gt.bboxes, gt.labels))])
    assert sums[3] == 5 * NUM_REPEATS
    for name, total in zip(('cls', 'bbox', 'iou'), sums, strict=False):
        torch.testing.assert_close(
            losses[f'one_to_many_loss_{name}'], total / sums[3], rtol=1e-4, atol=1e-5
        )


@torch.no_grad()
def scores(model, feature_map, samples):
    return model.forward_transformer((feature_map,), samples)['outputs'][-1]['scores']


def test_groups_of_queries_do_not_see_each_other(detector, feature_map, samples):
    num = detector.num_queries
    groups = [slice(None, num), slice(num, None)]
    before = scores(detector.train(), feature_map, samples)
    for changed, kept in (groups, groups[::-1]):
        other = copy.deepcopy(detector)
        with torch.no_grad():
            other.query_embedding.weight[changed] *= -2
        after = scores(other, feature_map, samples)
        assert torch.equal(after[:, kept], before[:, kept])
        assert (after[:, changed] - before[:, changed]).abs().max() > 0.01
    # A test has the first group alone.
    alone = scores(detector.eval(), feature_map, samples)
    torch.testing.assert_close(alone, before[:, :num])


def test_padding_is_not_seen(detector, feature_map, samples):
    other = feature_map.clone()
    other[0, :, 4:] = 1e3  # outside of the first image, 64 x 128 px
    other[1, :, :, 4:] = -1e3
    detector.eval()
    with torch.no_grad():
        first, second = (
            detector.forward_transformer((x,), samples)['outputs'][-1] for x in (feature_map, other)
        )
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert first['bboxes'][0, :, 3].max() <= 64 and first['bboxes'][1, :, 2].max() <= 64


def test_boxes_of_a_layer_train_the_layer_before(detector, feature_map, samples):
    outputs = detector.train().forward_transformer((feature_map,), samples)['outputs']
    before, last = detector.bbox_head.reg_branches[:2]
    gradients = torch.autograd.grad(outputs[1]['bboxes'].sum(), [before[-1].bias, last[-1].bias])
    assert all(g.abs().max() > 0 for g in gradients)


def test_images_without_annotations(detector, samples):
    for sample in samples:
        sample.gt_instances = sample.gt_instances[:0]
    detector.train().zero_grad()
    losses = detector.loss(torch.randn(2, 3, 128, 128), samples)
    assert all(value == 0 for name, value in losses.items() if not name.endswith('cls'))
    total = sum(losses.values())
    total.backward()
    assert 0 < total < math.inf
    assert detector.query_embedding.weight.grad.isfinite().all()


def test_predictions_are_inside_of_the_original_image(detector, samples):
    for sample in samples:
        sample.set_metainfo(dict(scale_factor=(2.0, 2.0)))
    with torch.no_grad():
        found = detector.eval().predict(torch.randn(2, 3, 128, 128), samples)
    for sample, (height, width) in zip(found, SHAPES, strict=True):
        boxes, scores = sample.pred_instances.bboxes, sample.pred_instances.scores
        assert len(boxes) == 20 and (scores.diff() <= 0).all() and boxes.min() >= 0
        assert boxes[:, 2].max() <= width / 2 and boxes[:, 3].max() <= height / 2


def test_small_images(detector, samples, monkeypatch):
    """Fewer queries than detections are kept of; and maps too small for the coarsest proposals."""
    test_cfg = {**detector.bbox_head.test_cfg, 'max_per_img': 10_000}
    monkeypatch.setattr(detector.bbox_head, 'test_cfg', test_cfg)
    with torch.no_grad():
        found = detector.eval().predict(torch.randn(2, 3, 128, 128), samples)
        assert [len(sample.pred_instances) for sample in found] == [20 * NUM_CLASSES] * 2
        with pytest.raises(UserError, match='more than 32 px'):
            detector.predict(torch.randn(2, 3, 32, 128), samples)
    assert detector.bbox_head.test_cfg is test_cfg


def test_raw_outputs(detector, samples):
    for training, num_queries in ((True, 20 + 320), (False, 20)):
        with torch.no_grad():
            model = detector.train(training)
            logits, boxes = model(torch.randn(2, 3, 128, 128), samples, mode='tensor')
        assert logits.shape == (2, 2, num_queries, NUM_CLASSES)
        assert boxes.shape == (2, 2, num_queries, 4)


def test_initial_weights_are_those_of_the_official_code(detector):
    decoder, head = detector.decoder, detector.bbox_head
    cross_attention = decoder.layers[0].attentions[1].attn
    for weight in (cross_attention.in_proj_weight, decoder.biases[0].cpb_mlp[0][2].weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    bound = math.sqrt(6 / (2 * detector.embed_dims))
    assert detector.memory_trans_fc.weight.abs().max().item() == pytest.approx(bound, rel=0.05)
    assert all(branch.bias.allclose(torch.tensor(-math.log(99))) for branch in head.cls_branches)
    assert all(not branch[-1].bias.any() for branch in head.reg_branches)
    assert detector.query_embedding.weight.std().item() == pytest.approx(1, rel=0.05)


def test_what_decays_is_as_in_the_official_code(detector):
    for name, parameter in detector.named_parameters():
        if not name.startswith('backbone.'):
            exempt = parameter.ndim == 1 or 'cpb_mlp' in name
            assert is_decayed(name, parameter) != exempt, name
    assert detector.level_embed.ndim == 1


@pytest.mark.slow
def test_the_leaf_trains_and_tests_on_tiny_data(tool, tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(tmp_path / 'data'))
    lines = LEAF.read_text().splitlines()
    assert len(lines) <= 25 and str(LEAF.relative_to(ROOT)) in lines[1]
    tree = shrink(Config.fromfile(LEAF))
    write_data(tree)
    (tmp_path / 'leaf.py').write_text(as_text(tree))
    status, errors = tool('train', tmp_path / 'leaf.py', '--work-dir', tmp_path / 'train')
    assert status == 0, errors
    (log,) = tmp_path.glob('train/*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in log.read_text().splitlines()]
    assert len(losses) == 1 and 0 < losses[0] < math.inf
    checkpoint = (tmp_path / 'train' / 'last_checkpoint').read_text().strip()
    out = tmp_path / 'scores.json'
    status, errors = tool(
        'test', tmp_path / 'leaf.py', checkpoint, '--work-dir', tmp_path / 'test', '--out', out
    )
    assert status == 0, errors
    assert 'coco/bbox_mAP' in json.loads(out.read_text())['metrics']
