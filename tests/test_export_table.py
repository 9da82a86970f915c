"""The models of dev/export_table.yml fit, and the way from a training to the tables is whole."""

import importlib.util

import pytest
import yaml

import swinv2_mm.models  # noqa: F401
from dev import export_table
from swinv2_mm.config.file import load_config

CONTENT = yaml.safe_load(export_table.MODELS.read_text())


def numbers_of_classes(node):
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == 'num_classes' and value != 1:
            yield value
        elif isinstance(value, (dict, list)):
            yield from numbers_of_classes(value)


def test_leaves_fit_their_data(tmp_path):
    for case in export_table.cases(CONTENT, tmp_path):
        cfg = load_config(str(case.write_leaf(CONTENT)))
        wanted = {'facade-htc': {10, 11}, 'facade-maps': {11}, 'balloon': {1}, 'coco_mini': {80}}
        found = set(numbers_of_classes(cfg.model.to_dict()))
        # One class is that of the RPN too; Mask2Former counts things.
        assert found <= wanted.get(case.data, {10}), case
        scales = [step['scale'] for step in cfg.test_dataloader.dataset.pipeline if 'scale' in step]
        assert scales == [(128, 128)]


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ('onnx', 'onnxruntime', 'onnxscript')),
    reason='onnx, onnxruntime and onnxscript are not installed',
)
def test_a_model_is_trained_exported_and_tested(digits_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('SWINV2_DATA', str(digits_root))
    short = CONTENT['shared'].replace('px, steps = 128, 60', 'px, steps = 96, 20')
    model = {**CONTENT['models']['RetinaNet'], 'data': ['digits']}
    content = {'shared': short, 'data': {'digits': 'digits-instance.py'}, 'models': {'tiny': model}}
    path = tmp_path / 'models.yml'
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(export_table, 'MODELS', path)
    monkeypatch.setattr(
        'sys.argv', ['export_table.py', '--work-dir', str(tmp_path / 'work'), '--num-images', '2']
    )
    export_table.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| tiny')]
    assert len(rows) == 3 and '(opset 18)' in rows[0] and 'height, width' in rows[1]
    assert all('box AP' in row for row in rows)
