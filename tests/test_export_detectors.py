"""Whole detectors: the path on tensors against mmdet's own, and the files that it is traced to."""

import copy
import importlib.util

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope

import swinv2_mm.models  # noqa: F401
from swinv2_mm.engine.trained_model import build_model
from swinv2_mm.export import files
from swinv2_mm.export.decisions import best_of_all
from swinv2_mm.export.detectors import per_anchor, widen_single_channels
from swinv2_mm.export.model import ExportedModel, reference, traceable, whole_part
from swinv2_mm.export.verification import as_input, compared
from swinv2_mm.runtime.files import open_exported

ARCH = {'embed_dim': 16, 'depths': (1, 1, 1, 1), 'num_heads': (1, 1, 2, 2)}
CHANNELS = (16, 32, 64, 128)
WIDTH = 32
DETECTION = 'configs/detection'
# Neither stride nor window divides its sides.
SIZE, OTHER = (101, 139), (149, 90)
# The last levels of its pyramid have one place.
TINY = (48, 60)
CONFIGS = {
    'mask-rcnn': f'{DETECTION}/mask-rcnn_swinv2-t-w16_fpn_1x_coco.py',
    'cascade': f'{DETECTION}/cascade-mask-rcnn_swinv2-nano-w12_facade.py',
    'retinanet': f'{DETECTION}/retinanet_swinv2-t-w16_fpn_1x_coco.py',
    'atss': f'{DETECTION}/atss_swinv2-t-w16_fpn_1x_coco.py',
    'htc++': f'{DETECTION}/htc++_swinv2-nano-w12_facade.py',
    'dino': f'{DETECTION}/dino-4scale_swinv2-t-w16_8xb2-12e_coco.py',
    'mask2former': f'{DETECTION}/mask2former_swinv2-t-w16_8xb2-lsj-50e_coco.py',
    'panoptic': f'{DETECTION}/mask2former_swinv2-t-w16_8xb2-lsj-50e_coco-panoptic.py',
    'semantic': 'configs/segmentation/mask2former_swinv2-t-w16_8xb2-160k_ade20k-512.py',
}
FORMATS = [
    pytest.param(
        'onnx',
        marks=pytest.mark.skipif(
            importlib.util.find_spec('onnxruntime') is None, reason='onnxruntime is not installed'
        ),
    ),
    'torch-export',
]


def narrow(name):
    """Build a family with random weights, few layers and thresholds that let much through."""
    cfg = Config.fromfile(CONFIGS[name])
    model = cfg.model
    model.backbone.update(arch=ARCH, window_size=4, init_cfg=None, pretrained_window_sizes=None)
    indices = model.backbone.get('out_indices', (0, 1, 2, 3))
    for part in ('neck', 'panoptic_head', 'decode_head'):
        if part in model and 'in_channels' in model[part]:
            model[part].in_channels = [CHANNELS[i] for i in indices]
    head = model.get('panoptic_head') or model.get('decode_head')
    if head is not None:
        head.num_queries = 20
        head.pixel_decoder.encoder.num_layers = 1
        head.transformer_decoder.num_layers = 2
        model.test_cfg.update(max_per_image=15, object_mask_thr=0.0, iou_thr=0.1)
    if name == 'dino':
        model.update(num_queries=30)
        model.encoder.num_layers = model.decoder.num_layers = 2
        model.test_cfg.max_per_img = 20
    if name == 'mask-rcnn':
        model.neck.out_channels = WIDTH
        model.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
        roi = model.roi_head
        roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = WIDTH
        roi.bbox_head.update(in_channels=WIDTH, fc_out_channels=WIDTH)
        roi.mask_head.update(in_channels=WIDTH, conv_out_channels=WIDTH)
    if 'rpn' in model.test_cfg:
        model.test_cfg.rpn.update(nms_pre=200, max_per_img=50)
        model.test_cfg.rcnn.update(score_thr=0.02, max_per_img=20)
    if 'score_thr' in model.test_cfg:
        model.neck.out_channels = WIDTH
        # Of 32 groups: a norm needs two values each, also of a level of one place.
        model.bbox_head.update(in_channels=WIDTH, feat_channels=2 * WIDTH)
        model.test_cfg.update(score_thr=0.008, nms_pre=200, max_per_img=30)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    for parameter in built.parameters():
        # Norms that start at zero would hide all blocks; anchors of one score would be a toss-up.
        parameter.data += 0.03 * torch.randn_like(parameter)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def families():
    built = {}
    return lambda name: built[name] if name in built else built.setdefault(name, narrow(name))


def test_a_config_can_be_built_again_and_written_to_a_file():
    cfg = Config.fromfile(CONFIGS['dino'])
    cfg.model.backbone.update(arch=ARCH, init_cfg=None, pretrained_window_sizes=None)
    cfg.model.neck.in_channels = list(CHANNELS[1:])
    before = copy.deepcopy(cfg.to_dict())
    build_model(cfg)
    assert cfg.to_dict() == before


def image(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def assert_agrees(model, run, *, part, size):
    x = image(size)
    expected = reference(model, x, part=part)
    found = run(as_input(x))
    agreement = compared(expected, found, longest_px=max(size))
    assert agreement.is_close, agreement
    return agreement


@pytest.mark.parametrize('name', CONFIGS)
def test_predictions_on_tensors_are_those_of_the_library(families, name):
    model = families(name)
    part = whole_part(model)
    exported = ExportedModel(model, part=part)
    traced = traceable(exported, fixed_px=SIZE)

    def run(x):
        return dict(zip(exported.output_names, traced(x), strict=True))

    agreement = assert_agrees(model, run, part=part, size=SIZE)
    least = 0 if name in ('panoptic', 'semantic') else 6
    assert agreement.num_agreeing == agreement.num_detections >= least


@pytest.mark.slow
@pytest.mark.parametrize('file_format', FORMATS)
@pytest.mark.parametrize('name', CONFIGS)
def test_one_file_fits_every_size(families, name, file_format, tmp_path):
    model = families(name)
    part = whole_part(model)
    exported = ExportedModel(model, part=part)
    program = files.trace(
        traceable(exported, fixed_px=None),
        shape_px=None,
        has_open_batch=exported.has_open_batch,
        smallest_px=exported.smallest_px,
    )
    path = tmp_path / ('model.onnx' if file_format == 'onnx' else 'model.pt2')
    files.write(program, path, file_format=file_format, metadata={'outputs': exported.output_names})
    file = open_exported(path)
    for size in (SIZE, OTHER) if exported.smallest_px > 1 else (SIZE, OTHER, TINY):
        assert_agrees(model, file, part=part, size=size)


@pytest.mark.parametrize(('num_anchors', 'channels'), [(3, 3), (1, 1)])
def test_a_level_of_one_place_is_like_any_other(num_anchors, channels):
    """A graph asked whether a level has several, and a .pt2 refused images of 128 x 128 px."""

    class Level(torch.nn.Sequential):
        def forward(self, x):
            return per_anchor(super().forward(x), channels)

    conv = torch.nn.Conv2d(3, num_anchors * channels, 3, stride=128, padding=1)
    level = Level(conv).requires_grad_(False)
    wide = copy.deepcopy(level)
    widen_single_channels(wide)
    program = files.trace(wide, shape_px=None, has_open_batch=False)
    for size in ((128, 128), (33, 50), (129, 300)):
        x = torch.rand(1, 3, *size)
        torch.testing.assert_close(program.module()(x), level(x))


@pytest.mark.parametrize(
    'file_format',
    [pytest.param('onnx', marks=[*FORMATS[0].marks, pytest.mark.slow]), 'torch-export'],
)
def test_one_graph_finds_nothing_one_box_and_many(file_format, tmp_path):
    """torchvision has a graph assert that NMS keeps two boxes: a .pt2 raised on other images."""

    class Decisions(torch.nn.Module):
        def forward(self, images):
            scores = images[0, 0].flatten()
            sure = (scores > 0.5).nonzero()[:, 0]
            boxes = sure[:, None] * 3.0 + torch.tensor([0.0, 0.0, 2.0, 2.0])
            settings = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5)
            return best_of_all([boxes, boxes], [scores[sure]] * 2, [sure % 2] * 2, settings)

    names = ('boxes', 'scores', 'labels')
    path = tmp_path / ('model.onnx' if file_format == 'onnx' else 'model.pt2')
    program = files.trace(Decisions(), shape_px=None, has_open_batch=False)
    files.write(program, path, file_format=file_format, metadata={'outputs': names})
    file = open_exported(path)
    for count in (0, 1, 2, 9):
        images = torch.zeros(1, 3, 4, 5)
        images[0, 0].view(-1)[:count] = torch.linspace(0.6, 0.9, count)
        found, expected = file(images), Decisions()(images)
        assert len(expected[0]) == min(count, 5)
        for name, wanted in zip(names, expected, strict=True):
            torch.testing.assert_close(found[name], wanted)


@pytest.mark.parametrize('name', ['mask-rcnn', 'htc++', 'retinanet'])
def test_an_image_without_detections(families, name):
    model = copy.deepcopy(families(name))
    part = whole_part(model)
    settings = model.test_cfg if part == 'one-stage' else model.roi_head.test_cfg
    settings.score_thr = 1.0
    if part == 'one-stage':
        model.bbox_head.test_cfg = settings
    exported = ExportedModel(model, part=part)
    traced = traceable(exported, fixed_px=SIZE)
    found = dict(zip(exported.output_names, traced(as_input(image(SIZE))), strict=True))
    assert found['boxes'].shape == (1, 0, 4)
    assert found['scores'].shape == found['labels'].shape == (1, 0)
    if 'masks' in found:
        assert found['masks'].shape == (1, 0, *SIZE)
