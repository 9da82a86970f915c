"""docs/custom_dataset.md: its leaves load, build and pass the check; its commands are real."""

import json
import re
import shlex
import shutil

import pytest
from conftest import ROOT
from mmengine.registry import DATASETS, MODELS

import swinv2_mm.models  # noqa: F401  the stand-in for mmcv's compiled ops
from swinv2_mm.engine.config_file import load_config

DOCUMENT = (ROOT / 'docs' / 'custom_dataset.md').read_text()
LEAVES = {
    match[1]: match[2]
    for match in re.finditer(r'```python\n# (configs/\S+\.py)\n(.*?)```', DOCUMENT, re.S)
}
FULL_SIZE = dict(re.findall(r'^\| `(\S+my-\S+\.py)` \| `(\S+\.py)` \|', DOCUMENT, re.M))
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r'```shell\n(.*?)```', DOCUMENT, re.S)
    for line in block.splitlines()
]


@pytest.fixture
def written_leaf(use_data, tmp_path):
    """Write a leaf of the document into a copy of the configs."""

    def write(name):
        cfg_folder = tmp_path / 'configs'
        shutil.copytree(ROOT / 'configs', cfg_folder)
        path = tmp_path / name
        path.write_text(LEAVES[name])
        data_root = load_config(str(path)).train_dataloader.dataset.data_root
        if not (use_data / data_root.rpartition('/')[2]).exists():
            pytest.skip(f'{data_root} is not here')
        return path

    return write


def test_document_has_a_leaf_of_about_ten_lines_for_each_layout():
    assert {name.split('/')[1] for name in LEAVES} == {
        'detection',
        'segmentation',
        'classification',
    }
    assert all(len(text.splitlines()) <= 12 for text in LEAVES.values())


@pytest.mark.parametrize('name', LEAVES)
def test_leaf_passes_the_check_and_builds(name, written_leaf, tool, tmp_path):
    path = written_leaf(name)
    sheet, out = tmp_path / 'sheet.png', tmp_path / 'report.json'
    commands = [c for c in COMMANDS if c[1:4] == ['tools/dataset.py', 'check', name]]
    assert len(commands) == 1
    arguments = [str(sheet) if a == 'sheet.png' else a for a in commands[0][4:]]
    status, errors = tool('dataset', 'check', path, *arguments, '--out', out, '--num-images', 20)
    assert status == 0, errors
    assert sheet.exists()
    report = json.loads(out.read_text())
    cfg = load_config(str(path))
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        data_set = registry.build(cfg.train_dataloader.dataset)
    classes = list(report['data_sets'][0]['labels_per_class'])
    assert list(data_set.metainfo['classes']) == classes
    assert {'inputs', 'data_samples'} <= set(data_set[0])
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        model = registry.build(cfg.model)
    heads = [m.num_classes for m in model.modules() if hasattr(m, 'num_classes')]
    assert len(classes) in heads


@pytest.mark.parametrize('name', LEAVES)
def test_leaf_fits_the_full_size_recipe(name, written_leaf, tool, tmp_path):
    path = written_leaf(name)
    base = path.with_name(FULL_SIZE[path.name])
    assert base.is_file()
    text = path.read_text()
    path.write_text(re.sub(r"^_base_ = '.*'", f"_base_ = '{base.name}'", text))
    assert path.read_text() != text
    out = tmp_path / 'report.json'
    status, errors = tool('dataset', 'check', path, '--out', out, '--num-images', 2)
    assert status == 0, errors
    names = [d['name'] for d in json.loads(out.read_text())['data_sets']]
    assert names == ['train', 'val, test']


def test_commands_name_leaves_of_the_document():
    for command in COMMANDS:
        assert command[0] == 'python' and (ROOT / command[1]).is_file()
        config = next(word for word in command if word.startswith('configs/'))
        assert config in LEAVES


@pytest.mark.slow
@pytest.mark.parametrize('name', LEAVES)
def test_leaf_trains_and_tests(name, written_leaf, tool, tmp_path):
    path = written_leaf(name)
    cfg = load_config(str(path))
    by_epoch = cfg.train_cfg.type == 'EpochBasedTrainLoop'
    length = 'train_cfg.max_epochs=1' if by_epoch else 'train_cfg.max_iters=2'
    options = [
        length,
        f'default_hooks.checkpoint.interval={1 if by_epoch else 2}',
        'train_dataloader.batch_size=2',
        '+train_dataloader.dataset.indices=4',
        '+test_dataloader.dataset.indices=2',
        '+val_dataloader=None',
        '+val_cfg=None',
        '+val_evaluator=None',
    ]
    status, errors = tool('train', path, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert status == 0, errors
    checkpoint = (tmp_path / 'run' / 'last_checkpoint').read_text().strip()
    out = tmp_path / 'scores.json'
    status, errors = tool(
        'test', path, checkpoint, '--work-dir', tmp_path / 'test', '--out', out,
        '--cfg-options', *options,
    )  # fmt: skip
    assert status == 0, errors
    assert json.loads(out.read_text())['metrics']
