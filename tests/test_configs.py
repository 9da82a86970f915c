"""Every leaf config builds, shrunk, and runs a training and a testing step."""

import json
from pathlib import Path

import pytest
from conftest import ROOT
from mmengine.config import Config

LEAVES = sorted(
    p.relative_to(ROOT / 'configs')
    for p in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in p.parts
)
SHRUNK = ['model.backbone.arch=dict(embed_dim=16,depths=(1,2,1,1),num_heads=(1,2,4,8))']
WIDTHS = {
    'mmdet': ['model.neck.in_channels=[16,32,64,128]'],
    'mmseg': [
        'model.decode_head.in_channels=[16,32,64,128]',
        'model.auxiliary_head.in_channels=64',
    ],
    'mmpretrain': ['model.head.in_channels=128'],
}
METRIC = {'mmdet': 'coco/segm_mAP_50', 'mmseg': 'mIoU', 'mmpretrain': 'accuracy/top1'}


def test_there_are_leaves_for_every_task():
    assert {p.parts[0] for p in LEAVES} == {'classification', 'detection', 'segmentation'}


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_leaf_is_short_and_says_what_it_is(leaf):
    lines = (ROOT / 'configs' / leaf).read_text().splitlines()
    assert len(lines) <= 25
    header = [line for line in lines if line.startswith('#')]
    for word in ('Trains:', 'Command:', 'Hardware:', 'Score:', 'Source:'):
        assert any(line.startswith(f'# {word}') for line in header), f'no "{word}" in the header'


@pytest.mark.parametrize('leaf', LEAVES, ids=str)
def test_leaf_trains_and_tests(leaf, tool, use_data, tmp_path):
    path = ROOT / 'configs' / leaf
    cfg = Config.fromfile(path)
    data_set = Path(cfg.train_dataloader.dataset.data_root)
    if not data_set.exists():
        pytest.skip(f'{data_set.name} is not here')
    options = [
        *SHRUNK,
        *WIDTHS[cfg.default_scope],
        'train_dataloader.batch_size=2',
        '+train_dataloader.dataset.indices=4',
        '+test_dataloader.dataset.indices=2',
        'train_dataloader.num_workers=0',
        '+train_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0',
        '+val_dataloader=None',
        '+val_cfg=None',
        '+val_evaluator=None',
        'default_hooks.logger.interval=1',
    ]
    if cfg.train_cfg.type == 'IterBasedTrainLoop':
        options += ['train_cfg.max_iters=2', 'default_hooks.checkpoint.interval=2']
    else:
        options += ['train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=1']
    status, errors = tool('train', path, '--work-dir', tmp_path, '--cfg-options', *options)
    assert status == 0, errors
    losses = [
        json.loads(line)['loss']
        for scalars in tmp_path.glob('*/vis_data/scalars.json')
        for line in scalars.read_text().splitlines()
    ]
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)
    checkpoint = (tmp_path / 'last_checkpoint').read_text().strip()
    out = tmp_path / 'scores.json'
    status, errors = tool(
        'test', path, checkpoint, '--work-dir', tmp_path / 'test', '--out', out,
        '--show-dir', tmp_path / 'pictures', '--cfg-options', *options,
    )  # fmt: skip
    assert status == 0, errors
    assert METRIC[cfg.default_scope] in json.loads(out.read_text())['metrics']
    assert len(list((tmp_path / 'pictures').rglob('*.[jp][pn]g'))) == 2
