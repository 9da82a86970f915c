"""The traced model against the original, and the tool that writes and checks the file."""

import importlib.util
import json
import os
import signal
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

import swinv2_mm.cli
import swinv2_mm.models
from swinv2_mm.checkpoint import save_pretrained
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.engine.trained_model import load_trained_model
from swinv2_mm.errors import UserError
from swinv2_mm.export import files, quantization, writing
from swinv2_mm.export.model import traceable
from swinv2_mm.export.pooling import MatrixPool
from swinv2_mm.runtime import model as runtime_model
from swinv2_mm.runtime.files import open_exported, require_onnx
from swinv2_mm.runtime.metadata import config_in
from swinv2_mm.runtime.model import FileModel

ARCH = {'embed_dim': 16, 'depths': (2, 1), 'num_heads': (1, 2)}
# The same numbers in another order of additions, in float32: found 7e-7 at most.
TOLERANCE = 5e-6
LEAF = 'configs/classification/swinv2-nano-w8_digits.py'
SEGMENTOR = 'configs/segmentation/upernet_swinv2-nano-w8_digits.py'

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ('onnx', 'onnxruntime', 'onnxscript')),
    reason='onnx, onnxruntime and onnxscript are not installed: pip install swinv2_mm[export]',
)


def randomised(model, *, noise=0.1):
    """Norms that start at zero would hide all blocks."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += noise * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / ours.abs().max()).item()


SHAPES = [(64, 64), (37, 75), (9, 50), (5, 7), (71, 33), (17, 130), (33, 33), (15, 200), (3, 3)]
SETTINGS = [
    {'window_size': 4},
    {'window_size': [(3, 5), (2, 7)], 'position_bias': 'linear_cpb'},
    {'window_size': 4, 'pretrained_window_sizes': 6, 'arch': {**ARCH, 'extra_norm_every': 1}},
]


class Backbone(nn.Module):
    """What ``traceable`` takes: a model with a backbone, and which part of it is wanted."""

    part = 'backbone'
    divisor = 1

    def __init__(self, **settings):
        super().__init__()
        self.model = nn.Module()
        self.model.backbone = SwinTransformerV2(**{'arch': ARCH, 'out_indices': (0, 1), **settings})
        randomised(self)

    def forward(self, x):
        return self.model.backbone(x)


def assert_same_maps(run, original, *, shape):
    images = torch.randn(2, 3, *shape)
    with torch.no_grad():
        for ours, theirs in zip(original(images), run(images), strict=True):
            assert ours.shape == theirs.shape
            assert difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize('settings', SETTINGS)
def test_one_graph_fits_every_size_down_to_one_token(settings):
    original = Backbone(**settings)
    run = files.trace(traceable(original, fixed_px=None), shape_px=None).module()
    for shape in SHAPES:
        assert_same_maps(run, original, shape=shape)
    attention = original.model.backbone.layers[0].blocks[0].attn
    assert attention.position_bias != 'table', 'the original was changed'


@needs_onnx
@pytest.mark.parametrize('settings', SETTINGS[1:2])
def test_one_onnx_file_fits_every_size(settings, tmp_path):
    original = Backbone(**settings)
    program = files.trace(traceable(original, fixed_px=None), shape_px=None)
    path = tmp_path / 'backbone.onnx'
    files.write(program, path, file_format='onnx', metadata={'outputs': ['stage0', 'stage1']})
    file = open_exported(path)
    assert file.output_names == ('stage0', 'stage1')
    for shape in SHAPES:
        assert_same_maps(file.run, original, shape=shape)


@pytest.mark.parametrize('shape', [(64, 64), (37, 75), (5, 7)])
@pytest.mark.parametrize('settings', [*SETTINGS[:2], {'window_size': 4, 'tiling': 'balanced'}])
def test_graph_of_a_fixed_size(settings, shape):
    original = Backbone(**settings)
    run = files.trace(traceable(original, fixed_px=shape), shape_px=shape).module()
    assert_same_maps(run, original, shape=shape)


@pytest.mark.parametrize('position_bias', ['log_cpb', 'linear_cpb', 'table'])
def test_a_fixed_size_keeps_no_more_of_a_window_than_its_maps(position_bias):
    original = Backbone(window_size=(4, 40), pretrained_window_sizes=6, position_bias=position_bias)
    fixed = traceable(original, fixed_px=(37, 75))
    assert [stage.window for stage in fixed.model.backbone.layers] == [(4, 4), (5, 10)]
    for shape in ((37, 75), (30, 70)):
        assert_same_maps(fixed, original, shape=shape)


def test_balanced_windows_need_a_fixed_size():
    with pytest.raises(UserError, match='--shape'):
        traceable(Backbone(window_size=4, tiling='balanced'), fixed_px=None)


@pytest.mark.parametrize('bins', [(1, 1), (2, 3), (6, 6)])
@pytest.mark.parametrize('size', [(6, 12), (7, 5), (3, 2)])
def test_matrix_pool_is_adaptive_pooling(bins, size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(MatrixPool(bins)(x), nn.AdaptiveAvgPool2d(bins)(x))


@pytest.fixture
def classifier(use_data, tmp_path):
    """Paths of the config and the weights of a tiny classifier."""
    return tiny_classifier(tmp_path)


def tiny_classifier(folder):
    cfg = Config.fromfile(LEAF)
    cfg.model.backbone = dict(type='SwinV2', arch=ARCH, window_size=4, out_indices=(1,))
    cfg.model.head.in_channels = 32
    return saved(cfg, folder)


def saved(cfg, folder, *, noise=0.1):
    config, weights = folder / 'tiny.py', folder / 'tiny.pth'
    cfg.dump(config)
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    randomised(model, noise=noise)
    torch.save({'state_dict': model.state_dict()}, weights)
    return config, weights


def test_open_torch_export_file(tool, classifier, tmp_path):
    out = tmp_path / 'out' / 'tiny.pt2'
    status, errors = tool(
        'export', *classifier, out, '--format', 'torch-export', '--dynamic', '--num-images', '4'
    )
    assert (status, errors) == (0, ''), errors
    assert 'on 4 images at 64 x 64 and 49 x 83 px' in tool.printed
    model, _ = load_trained_model(Config.fromfile(classifier[0]), classifier[1], device='cpu')
    run = open_exported(out).run
    # Sizes and a batch that the tool has not seen; RGB in, while the model's library starts at BGR.
    for shape in ((17, 130), (71, 33), (9, 6)):
        images = torch.rand(3, 3, *shape) * 255
        with torch.no_grad():
            expected = model(model.data_preprocessor({'inputs': images.flip(1)})['inputs'])
        assert difference(expected, run(images)[0]) < TOLERANCE


@needs_onnx
@pytest.mark.slow
def test_onnx_and_its_copies_in_fewer_bits(tool, classifier, tmp_path):
    out = tmp_path / 'tiny.onnx'
    status, errors = tool('export', *classifier, out, '--int8', '--fp16', '--num-images', '3')
    assert status == 0, errors
    assert 'on 3 images at 64 x 64 px' in tool.printed
    small, half = tmp_path / 'tiny.int8.onnx', tmp_path / 'tiny.fp16.onnx'
    for path in (small, half):
        assert path.stat().st_size < out.stat().st_size
        assert f'{path.name}: accuracy/top1' in tool.printed
    images = torch.rand(2, 3, 64, 64) * 255
    exact, rough, near = (open_exported(p)(images)['logits'] for p in (out, small, half))
    assert 0 < difference(exact, near) < 0.01
    assert difference(exact, near) < difference(exact, rough) < 0.2
    assert 'layers have 8 bits, ' in tool.printed
    assert sorted(path.name for path in tmp_path.glob('*.onnx*')) == sorted(
        [half.name, small.name, out.name]
    )


NUM_PIXELS = 3 * 64 * 64


@pytest.fixture(scope='module')
def three_layers(tmp_path_factory):
    """An ONNX file of three products, the last of which makes its logits."""
    from onnx import TensorProto, helper, numpy_helper, save

    generator = np.random.default_rng(0)
    sizes = {'first': (NUM_PIXELS, 16), 'second': (16, 16), 'last': (16, 4)}
    weights = [
        numpy_helper.from_array(
            (generator.standard_normal(size) / size[0] ** 0.5).astype(np.float32), f'{name}_weight'
        )
        for name, size in sizes.items()
    ]
    shape = numpy_helper.from_array(np.array([-1, NUM_PIXELS]), 'shape')
    nodes = [helper.make_node('Reshape', ['images', 'shape'], ['x0'], 'flat')]
    for i, name in enumerate(sizes):
        result = 'logits' if name == 'last' else f'y{i}'
        nodes.append(helper.make_node('MatMul', [f'x{i}', f'{name}_weight'], [result], name))
        if name != 'last':
            nodes.append(helper.make_node('Relu', [f'y{i}'], [f'x{i + 1}'], f'relu{i}'))
    graph = helper.make_graph(
        nodes,
        'three',
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, ['batch', 3, 64, 64])],
        [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['batch', 4])],
        [shape, *weights],
    )
    path = tmp_path_factory.mktemp('layers') / 'three.onnx'
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10), path)
    return path


def saturating_product(activations, weights):
    """A matrix product as AVX2 computes it: ``vpmaddubsw`` saturates the sum of each pair."""
    pairs = activations.astype(np.int32)[..., None] * weights.astype(np.int32)
    pairs = pairs[..., 0::2, :] + pairs[..., 1::2, :]
    return pairs.clip(-(2**15), 2**15 - 1).sum(-2)


def photographs(number=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, 64, 64, generator=generator) * 255 for _ in range(number)]


@needs_onnx
@pytest.mark.parametrize('reduce_range', [False, True])
def test_8_bit_products_are_exact_on_processors_whose_pair_sums_saturate(
    three_layers, reduce_range, tmp_path
):
    path = tmp_path / 'int8.onnx'
    quantization.quantize(three_layers, path, images=photographs(), reduce_range=reduce_range)
    weights = quantization.integer_weights(path)
    assert sorted(weight.shape for weight in weights.values()) == [(16, 16), (NUM_PIXELS, 16)]
    errors = []
    for weight in weights.values():
        # The largest activation there is.
        activations = np.full((1, len(weight)), 255, dtype=np.uint8)
        exact = activations.astype(np.int32) @ weight.astype(np.int32)
        errors.append(np.abs(saturating_product(activations, weight) - exact).max())
    if reduce_range:
        assert max(errors) == 0
        quantization.check_weights(path)
        x = photographs()[1]
        exact, rough = (open_exported(p)(x)['logits'] for p in (three_layers, path))
        assert 0 < difference(exact, rough) < 0.1
    else:
        assert max(errors) > 0
        with pytest.raises(UserError, match='reduce_range'):
            quantization.check_weights(path)


@needs_onnx
def test_layers_that_are_decided_on_or_see_outliers_stay_in_float(three_layers, tmp_path):
    path = tmp_path / 'int8.onnx'
    assert quantization.quantize(three_layers, path, images=photographs()) == ['last']
    dark = torch.zeros(1, 3, 64, 64)
    dark[0, 0, 0, 0] = 255
    assert quantization.quantize(three_layers, path, images=[dark]) == ['first', 'last']


@needs_onnx
def test_a_copy_in_float16(three_layers, tmp_path):
    path = tmp_path / 'fp16.onnx'
    quantization.halve(three_layers, path)
    x = photographs()[0]
    exact, near = (open_exported(p)(x)['logits'] for p in (three_layers, path))
    assert exact.dtype == near.dtype == torch.float32
    # Nodes of no module compute coordinates and stay as they are; these are of none.
    assert difference(exact, near) < 1e-6


@needs_onnx
@pytest.mark.slow
def test_onnx_segmentor_of_any_size(tool, use_data, tmp_path):
    cfg = Config.fromfile(SEGMENTOR)
    cfg.model.backbone.arch = dict(embed_dim=16, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 2))
    cfg.model.decode_head.in_channels = [16, 32, 64, 128]
    cfg.model.auxiliary_head.in_channels = 64
    out = tmp_path / 'tiny.onnx'
    status, errors = tool('export', *saved(cfg, tmp_path), out, '--dynamic', '--num-images', '4')
    assert status == 0, errors
    assert 'on 4 images at 128 x 128 and 97 x 163 px' in tool.printed
    assert out.is_file()


DETECTOR = 'configs/detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py'


def detector(folder):
    """Paths of the config and the weights of a tiny detector that finds much in every image."""
    cfg = Config.fromfile(DETECTOR)
    cfg.model.backbone.arch = dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    cfg.model.neck.in_channels = [16, 32, 64, 128]
    cfg.model.test_cfg.rcnn.update(score_thr=0.01, max_per_img=10)
    # With more, all scores are 1, and which box is first is a toss-up.
    return saved(cfg, folder, noise=0.02)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize('task', ['classification', 'detection'])
def test_test_and_infer_do_with_a_file_what_they_do_with_the_weights(
    tool, classifier, task, tmp_path
):
    config, weights = classifier if task == 'classification' else detector(tmp_path)
    out = tmp_path / 'model.onnx'
    assert tool('export', config, weights, out, '--num-images', '2')[0] == 0
    metrics = []
    for number, arguments in enumerate([(config, weights), (out,)]):
        path = tmp_path / f'{number}.json'
        status, errors = tool('test', *arguments, '--out', path, '--work-dir', tmp_path / 'work')
        assert status == 0, errors
        metrics.append(json.loads(path.read_text())['metrics'])
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-3)
    image, side = tmp_path / 'image.png', 64 if task == 'classification' else 128
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    key, found = 'best' if task == 'classification' else 'detections', []
    for name, given in (('weights', [config, weights]), ('file', [None, out])):
        swinv2_mm.cli.infer(*given, image, out=tmp_path / name, score_threshold=None)
        found.append(json.loads((tmp_path / name / 'predictions.jsonl').read_text()))
    for ours, theirs in zip(*(content[key] for content in found), strict=True):
        assert ours['class'] == theirs['class']
        assert ours['score'] == pytest.approx(theirs['score'], abs=1e-3)


@pytest.mark.parametrize(
    'metadata, message',
    [
        ('{', 'not an exported file'),
        ('[1]', 'malformed'),
        ('{"part": ["segmentor"]}', 'malformed'),
        ('{"size": "ab"}', 'malformed'),
        ('{"config": 7}', 'malformed'),
        ('{"config": "[1]"}', 'no config'),
        ('{}', 'no config'),
        (json.dumps({'config': "{'model': [{'type': 'subprocess.Popen'}]}"}), 'any program'),
        (json.dumps({'config': "{'model': {'type': 'mmengine.utils.call_command'}}"}), 'any pro'),
    ],
)
def test_metadata_of_strangers(metadata, message, tmp_path):
    path = tmp_path / 'model.pt2'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('model/extra/swinv2_mm', metadata)
    with pytest.raises(UserError, match=message):
        config_in(path)


def test_a_file_with_the_config_of_another_task_is_refused(monkeypatch):
    file = SimpleNamespace(metadata={'part': 'classifier'})
    monkeypatch.setattr(runtime_model, 'open_exported', lambda path: file)
    with pytest.raises(UserError, match='Linear has no head'):
        FileModel('model.onnx', model=torch.nn.Linear(1, 1))


def test_a_file_that_disagrees_is_not_kept(tool, classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'trace', lambda model, **_: model)
    monkeypatch.setattr(files, 'write', lambda model, path, **_: torch.save(model, path))

    def opened(path, *, error):
        model = torch.load(path, weights_only=False)
        return lambda images: {'logits': model(images)[0] * (1 + error)}

    out = tmp_path / 'tiny.pt2'
    arguments = (*classifier, out, '--format', 'torch-export', '--num-images', '2')
    monkeypatch.setattr(writing, 'open_exported', lambda path: opened(path, error=1e-3))
    status, errors = tool('export', *arguments)
    assert status == 1
    assert 'logits 0.001' in errors
    assert errors.count('\n') == 1
    assert {path.name for path in tmp_path.iterdir()} == {'tiny.py', 'tiny.pth'}
    monkeypatch.setattr(writing, 'open_exported', lambda path: opened(path, error=0))
    assert tool('export', *arguments)[0] == 0
    assert out.is_file()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['tiny.pt2'], '--format onnx writes .onnx'),
        (['tiny.pt2', '--format', 'torch-export', '--int8'], '--int8 goes with --format onnx'),
        (['tiny.pt2', '--format', 'torch-export', '--shape', '0', '64'], 'positive'),
        (['tiny.pt2', '--format', 'torch-export', '--images', 'nowhere'], 'no image in nowhere'),
    ],
)
def test_mistakes_are_one_line(tool, classifier, arguments, message):
    status, errors = tool('export', *classifier, *arguments)
    assert status == 1
    assert message in errors
    assert errors.count('\n') == 1


def test_a_place_that_cannot_be_written_is_refused_before_tracing(tool, classifier, tmp_path):
    (tmp_path / 'folder.pt2').mkdir()
    (tmp_path / 'folder.pt2' / 'notes').touch()
    for out, word in (('folder.pt2', 'is a folder'), ('folder.pt2/notes/a.pt2', 'be written')):
        options = ('--format', 'torch-export', '--num-images', '1')
        status, errors = tool('export', *classifier, tmp_path / out, *options)
        assert status == 1
        assert word in errors
        assert errors.count('\n') == 1
    assert (tmp_path / 'folder.pt2' / 'notes').exists()


def test_sigterm_leaves_no_temporary_files(monkeypatch, tmp_path):
    from swinv2_mm.cli.commands import export as command

    def work(*_, **__):
        with writing._folder_beside(tmp_path / 'model.pt2') as folder:
            (folder / 'model.pt2').touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, 'run_command', work)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        command.main([])
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_safetensors_with_the_config_that_a_training_saved(classifier, tmp_path):
    config, weights = classifier
    model, _ = load_trained_model(Config.fromfile(config), weights, device='cpu')
    save_pretrained(model, tmp_path / 'own.safetensors', layout='own')
    config.write_text(f"{config.read_text()}\nparallel = 'ddp'\n")
    exported = swinv2_mm.cli.export(
        config,
        tmp_path / 'own.safetensors',
        tmp_path / 'tiny.pt2',
        file_format='torch-export',
        num_images=1,
    )
    assert exported.path.is_file()
    assert exported.agreement.differences['logits'] < TOLERANCE


def test_weights_of_another_model_are_refused(tool, classifier, tmp_path):
    torch.save({'state_dict': {'backbone.norm': torch.ones(3)}}, tmp_path / 'other.pth')
    out = tmp_path / 'tiny.pt2'
    status, errors = tool(
        'export', classifier[0], tmp_path / 'other.pth', out, '--format', 'torch-export'
    )
    assert status == 1
    assert errors.count('\n') == 1


def test_missing_packages_are_named_once(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install "onnx'):
        require_onnx()
