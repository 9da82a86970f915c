"""Every leaf config builds, shrunk, and runs a training and a testing step."""

import contextlib
import json
import math
import re
import time
from pathlib import Path

import leaf_table
import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from shrinking import as_text, shrink
from tiny_data import write_data

import swinv2_mm.models  # noqa: F401
from swinv2_mm.checkpoint.zoo import RELEASED

LEAVES = sorted(
    p.relative_to(ROOT / 'configs')
    for p in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in p.parts
)
METRICS = {
    'CocoMetric': 'coco/bbox_mAP',
    'CocoPanopticMetric': 'coco_panoptic/PQ',
    'IoUMetric': 'mIoU',
    'Accuracy': 'accuracy/top1',
}


def test_there_are_leaves_for_every_task():
    assert {p.parts[0] for p in LEAVES} >= {'classification', 'detection', 'segmentation'}


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_leaf_is_short_and_says_what_it_is(leaf):
    lines = (ROOT / 'configs' / leaf).read_text().splitlines()
    assert len(lines) <= 25
    header = [line for line in lines if line.startswith('#')]
    for word in ('Trains:', 'Command:', 'Hardware:', 'Score:', 'Source:'):
        assert any(line.startswith(f'# {word}') for line in header), f'no "{word}" in the header'
    # Its command is its own, unless `make demo` runs it.
    command = next(line for line in header if line.startswith('# Command:'))
    assert str(leaf) in command or 'make demo' in command


@pytest.mark.parametrize('kind', ['t-w16_fpn_1x_balloon', 't-w16_fpn_1x_facade', '4k_facade-512'])
def test_another_data_set_is_a_dozen_lines(kind):
    (path,) = (ROOT / 'configs').rglob(f'*{kind}.py')
    assert len(path.read_text().splitlines()) <= 12
    assert re.search(r"_base_ = '\w.*_(coco|ade20k-512).py'", path.read_text())


@pytest.fixture(scope='session')
def tiny_root(tmp_path_factory):
    return tmp_path_factory.mktemp('tiny')


@pytest.fixture
def timed(record_property):
    """Note for the table how long a step took; nothing if it fails."""

    @contextlib.contextmanager
    def run(step):
        start = time.perf_counter()
        yield
        record_property(step, time.perf_counter() - start)

    return run


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_leaf_builds_trains_and_tests(
    leaf, tool, tiny_root, tmp_path, monkeypatch, record_property, timed
):
    record_property('leaf', str(leaf))
    monkeypatch.setenv('SWINV2_DATA', str(tiny_root))
    cfg = Config.fromfile(ROOT / 'configs' / leaf)
    if batch := re.search(r'_(\d+)xb(\d+)[_-]', leaf.stem):
        gpus, images = map(int, batch.groups())
        assert cfg.train_dataloader.batch_size == images
        assert cfg.auto_scale_lr.base_batch_size == gpus * images
    # The released weights that it starts from exist, and are of its size.
    backbone = cfg.model.backbone
    for name in ((backbone.get('init_cfg') or {}).get('checkpoint'), cfg.load_from):
        if name and not Path(name).suffix:
            assert RELEASED[name].arch == backbone.arch
    tree = shrink(cfg)
    write_data(tree)
    # Runs of one name within a second share their log.
    paths = {step: tmp_path / f'{leaf.stem}_{step}.py' for step in ('train', 'test')}
    for path in paths.values():
        path.write_text(as_text(tree))

    with timed('build'), DefaultScope.overwrite_default_scope(tree['default_scope']):
        MODELS.build(Config.fromfile(paths['train']).model)

    with timed('train'):
        status, errors = tool('train', paths['train'], '--work-dir', tmp_path / 'train')
        assert status == 0, errors
        losses = [
            json.loads(line)['loss']
            for scalars in tmp_path.glob('train/*/vis_data/scalars.json')
            for line in scalars.read_text().splitlines()
        ]
        assert len(losses) == 1 and math.isfinite(losses[0]) and losses[0] > 0

    with timed('test'):
        checkpoint = (tmp_path / 'train' / 'last_checkpoint').read_text().strip()
        out, pictures = tmp_path / 'scores.json', tmp_path / 'pictures'
        drawing = ['--show-dir', pictures] if 'digits' in leaf.stem else []
        status, errors = tool(
            'test',
            paths['test'],
            checkpoint,
            '--work-dir',
            tmp_path / 'test',
            '--out',
            out,
            *drawing,
        )
        assert status == 0, errors
        metrics = json.loads(out.read_text())['metrics']
        evaluators = tree['test_evaluator']
        assert metrics
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            assert METRICS.get(evaluator['type']) in {None, *metrics}
        assert not drawing or len(list(pictures.rglob('*.[jp][pn]g'))) == 1


def test_a_leaf_with_the_wrong_width_does_not_pass(tool, tiny_root, tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(tiny_root))
    cfg = Config.fromfile(ROOT / 'configs/segmentation/upernet_swinv2-t-w16_4k_facade-512.py')
    cfg.model.auxiliary_head.in_channels = 192  # of stage 1, while it reads stage 2
    tree = shrink(cfg)
    write_data(tree)
    (tmp_path / 'wrong.py').write_text(as_text(tree))
    status, errors = tool('train', tmp_path / 'wrong.py', '--work-dir', tmp_path)
    assert status == 1 and 'in_channels' in errors.splitlines()[-1]


def test_shrinking_keeps_what_a_recipe_is():
    cfg = Config.fromfile(ROOT / 'configs/detection/dino-4scale_swinv2-l-w16_8xb2-36e_coco.py')
    tree = shrink(cfg)
    small, model = tree['model'], cfg.model
    assert small['backbone']['arch']['embed_dim'] == 24 and small['backbone']['with_cp']
    assert small['backbone']['window_size'] == 16 and 'init_cfg' not in small['backbone']
    assert small['neck']['in_channels'] == [48, 96, 192] and small['bbox_head']['num_classes'] == 80
    assert small['bbox_head']['loss_cls'] == model.bbox_head.loss_cls
    assert (
        tree['optim_wrapper'] == cfg.optim_wrapper
        and tree['param_scheduler'] == cfg.param_scheduler
    )
    pipeline = tree['test_dataloader']['dataset']['pipeline']
    assert {'type': 'Resize', 'scale': (107, 64), 'keep_ratio': True} in pipeline


def test_table_shows_where_a_leaf_failed():
    found = [{'leaf': 'b', 'build': 0.1}, {'leaf': 'a', 'build': 0.1, 'train': 1.0, 'test': 2.0}]
    lines = [line.split() for line in leaf_table.rows(found)]
    assert lines == [
        ['a', '0.1', 's', '1.0', 's', '2.0', 's'],
        ['b', '0.1', 's', 'FAILED', '-'],
    ]
