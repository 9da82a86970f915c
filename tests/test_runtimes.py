"""What runs exported files: ONNX Runtime, OpenVINO, AOTInductor; and the benchmark of them."""

import json
import shutil
import sys

import pytest
import torch
from mmengine.config import Config

from benchmarks import runtimes
from swinv2_mm.errors import UserError
from swinv2_mm.runtime.files import RUNTIME_VARIABLE, open_exported

onnx = pytest.importorskip('onnx', reason='pip install -r requirements/export.txt')


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """An ONNX file of two outputs, as ``export`` writes them."""
    helper, kind = onnx.helper, onnx.TensorProto
    shape = ['batch', 3, 'height', 'width']
    graph = helper.make_graph(
        [
            helper.make_node('GlobalAveragePool', ['images'], ['means']),
            helper.make_node('Greater', ['images', 'means'], ['above']),
        ],
        'graph',
        [helper.make_tensor_value_info('images', kind.FLOAT, shape)],
        [
            helper.make_tensor_value_info('means', kind.FLOAT, ['batch', 3, 1, 1]),
            helper.make_tensor_value_info('above', kind.BOOL, shape),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    facts = {'outputs': ['means', 'above'], 'part': 'classifier'}
    helper.set_model_props(model, {'swinv2_mm': json.dumps(facts)})
    path = tmp_path_factory.mktemp('onnx') / 'model.onnx'
    onnx.save(model, path)
    return path


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_runtimes_of_onnx_files(runtime, file, monkeypatch):
    pytest.importorskip(runtime)
    images = torch.rand(2, 3, 5, 7)
    monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
    opened = open_exported(file)
    assert opened.metadata['part'] == 'classifier'
    assert opened.output_names == ('means', 'above')
    found = opened(images)
    means = images.mean((2, 3), keepdim=True)
    torch.testing.assert_close(found['means'], means)
    assert found['above'].dtype == torch.bool
    assert torch.equal(found['above'], images > found['means'])


def test_unknown_and_missing_runtimes(file, monkeypatch):
    monkeypatch.setenv(RUNTIME_VARIABLE, 'tensorrt')
    with pytest.raises(UserError, match='openvino'):
        open_exported(file)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install'):
        open_exported(file, runtime='openvino')


def test_random_detectors_keep_all():
    settings = Config({'rpn': {'nms_pre': 5}, 'rcnn': {'score_thr': 0.05, 'max_per_img': 9}})
    runtimes._drop_thresholds(settings)
    assert settings.rcnn.score_thr == 0 and settings.rcnn.max_per_img == 9


@pytest.mark.slow
def test_every_runtime_agrees(data_root, tmp_path, monkeypatch):
    if shutil.which('g++') is None:
        pytest.skip('AOTInductor needs a C++ compiler')
    images = next((data_root / 'digits').glob('images/val'))
    figures = tmp_path / 'figures.json'
    config = runtimes.DEFAULT_MODELS[0][0]
    words = ['--images', images, '--model', config, 'random', '--num-images', 2]
    words += ['--shape', 64, '--rounds', 1, '--json', figures]
    monkeypatch.setattr(sys, 'argv', ['runtimes.py', *map(str, words)])
    runtimes.main()
    (result,) = json.loads(figures.read_text())['results']
    rows = {row['name']: row for row in result['rows']}
    assert list(rows) == ['PyTorch', 'ONNX Runtime', 'OpenVINO', 'torch.export', 'AOTInductor']
    assert not [row['cannot'] for row in rows.values() if row['cannot']]
    for row in list(rows.values())[1:]:
        assert row['agreement']['differences']['logits'] < 1e-4 and row['seconds']['median'] > 0
