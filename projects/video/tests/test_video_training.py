"""The recipes, and training, testing and their mistakes through the tools."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from mmengine.config import Config
from shrinking import as_text, shrink

from projects.video.swinv2_video.moving_digits import make_moving_digits
from swinv2_mm.checkpoint import RELEASED
from swinv2_mm.config.file import load_config

CONFIGS = ROOT / 'projects/video/configs'
LEAVES = sorted(path.name for path in CONFIGS.glob('*.py'))
PICO = 'video-swinv2-pico-w6x4_moving-digits.py'
SHORT = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'train_dataloader.batch_size=8',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
    'model.backbone.arch=dict(embed_dim=8,depths=(1,1),num_heads=(1,2))',
]
CLASSES = 8


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp('videos')
    make_moving_digits(root / 'moving_digits', num_train=16, num_val=8, progress=False)
    return root


@pytest.fixture(autouse=True)
def _surroundings(videos, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(videos))


def records(work_dir) -> list[dict]:
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in scalars.read_text().splitlines()]


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_is_short_and_says_what_it_is(leaf):
    lines = (CONFIGS / leaf).read_text().splitlines()
    assert len(lines) <= 25
    for word in ('Trains:', 'Command:', 'Hardware:', 'Score:', 'Source:'):
        assert any(line.startswith(f'# {word}') for line in lines), f'no "{word}" in the header'
    assert any(f'projects/video/configs/{leaf}' in line for line in lines if line[0] == '#')


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_is_consistent(leaf):
    cfg = load_config(str(CONFIGS / leaf))
    backbone = cfg.model.backbone
    window, frames = map(int, re.search(r'-w(\d+)x(\d+)_', leaf).groups())
    assert (backbone.window_size, backbone.temporal_window_size) == (window, frames)
    if batch := re.search(r'_(\d+)xb(\d+)-(\d+)e_', leaf):
        gpus, clips, epochs = map(int, batch.groups())
        assert cfg.train_dataloader.batch_size == clips and cfg.train_cfg.max_epochs == epochs
        assert cfg.auto_scale_lr.base_batch_size == gpus * clips
        cosine = cfg.param_scheduler[1]
        assert cfg.param_scheduler[0].end == cosine.begin == epochs - cosine.T_max
        assert cosine.end == epochs
    if 'k400' in leaf:
        steps = {step.type.split('/')[-1]: step for step in cfg.test_dataloader.dataset.pipeline}
        px = int(re.search(r'-(\d+)\.py', leaf)[1])
        assert steps['Resize']['size'] == steps['SpatialCrops'].size_px == px
        if leaf != 'video-swinv2-g-w24x8_k400-384.py':
            steps = {s.type.split('/')[-1]: s for s in cfg.train_dataloader.dataset.pipeline}
            assert steps['RandomResizedCrop']['size'] == px
    name = (backbone.get('init_cfg') or {}).get('checkpoint', '')
    assert name.endswith('.pth') or not name or RELEASED[name].arch == backbone.arch


def test_two_stages_are_those_of_the_paper():
    stages = [load_config(str(CONFIGS / leaf)) for leaf in LEAVES if '-g-' in leaf]
    first, second, test = stages
    found = []
    for stage in (first, second):
        optimizer, epochs = stage.optim_wrapper.optimizer, stage.train_cfg.max_epochs
        warm_up, batch = stage.param_scheduler[0].end, stage.auto_scale_lr.base_batch_size
        found.append((optimizer.lr, optimizer.weight_decay, epochs, warm_up, batch))
    assert found == [(3.6e-4, 0.1, 20, 2.5, 80), (5e-5, 0.1, 5, 1, 64)]
    assert second.load_from == f'work_dirs/{LEAVES[1][:-3]}/epoch_20.pth'
    views = test.test_dataloader.dataset.pipeline
    assert (views[0].num_clips, views[2].num_crops, test.model.backbone.window_size) == (4, 5, 24)
    assert all(s.train_dataloader.dataset.pipeline[1].clip_len == 8 for s in (first, second))


@pytest.mark.slow
@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if 'k400' in leaf])
def test_leaf_builds_trains_and_tests(leaf, tool, videos, tmp_path):
    cfg = Config.fromfile(CONFIGS / leaf)
    tree = shrink(cfg)
    # Its own lists, with the generated videos in them.
    for loader in ('train_dataloader', 'test_dataloader'):
        dataset, source = tree[loader]['dataset'], videos / 'moving_digits' / loader[:5].strip('_')
        dataset['data_prefix'] = {'video': str(videos / 'moving_digits' / 'val')}
        dataset['data_root'], dataset['ann_file'] = str(tmp_path), f'{source.name}.txt'
        (tmp_path / dataset['ann_file']).write_text('00000.avi 0\n00001.avi 1\n')
        for step in dataset['pipeline']:
            if 'clip_len' in step:
                step['clip_len'] = 8
    (tmp_path / leaf).write_text(as_text(tree))
    status, errors = tool('train', tmp_path / leaf, '--work-dir', tmp_path / 'train')
    assert status == 0, errors
    (record,) = [r for r in records(tmp_path / 'train') if 'loss' in r]
    assert 0 < record['loss'] < 100
    out = tmp_path / 'scores.json'
    checkpoint = (tmp_path / 'train' / 'last_checkpoint').read_text().strip()
    arguments = (tmp_path / leaf, checkpoint, '--work-dir', tmp_path / 'test', '--out', out)
    status, errors = tool('test', *arguments)
    assert status == 0, errors
    assert json.loads(out.read_text())['metrics'].keys() == {'accuracy/top1', 'accuracy/top5'}


def test_training_validation_by_path_and_other_windows(tool, tmp_path):
    config = CONFIGS / PICO
    status, errors = tool('train', config, '--work-dir', tmp_path / 'a', '--cfg-options', *SHORT)
    assert status == 0, errors
    trained = [record for record in records(tmp_path / 'a') if 'loss' in record]
    assert [record['step'] for record in trained] == [1, 2]
    assert all(record['images_per_s'] > 0 for record in trained)
    (validated,) = [record for record in records(tmp_path / 'a') if 'accuracy/top1' in record]

    def score(name, *arguments):
        out, predictions = tmp_path / f'{name}.json', tmp_path / f'{name}.npz'
        status, errors = tool(
            'test', config, tmp_path / 'a' / 'epoch_1.pth', '--work-dir', tmp_path / name,
            '--out', out, '--out', predictions, *arguments,
        )  # fmt: skip
        assert status == 0, errors
        from swinv2_mm.engine.prediction_file import read_predictions

        scores = {
            r['image'].split('/')[-1]: r['class_scores'] for r in read_predictions(predictions)
        }
        assert len(scores) == CLASSES
        return json.loads(out.read_text())['metrics'], scores['00003.avi']

    options = ['--cfg-options', SHORT[-1], 'test_dataloader.num_workers=0']
    metrics, plain = score('plain', *options)
    assert metrics['accuracy/top1'] == pytest.approx(validated['accuracy/top1'])
    # 12 x 12 x 4 tokens: one window of 12, and of 24, holds all; smaller ones do not.
    _, wide = score('w12', '--window-size', '12', *options)
    _, wider = score('w24', '--window-size', '24', *options)
    assert (wide == wider).all() and (wide != plain).any()
    views = ['test_dataloader.dataset.pipeline.0.num_clips=4']
    _, several = score('views', *options, *views)
    assert (several != plain).any()


def test_mistakes_are_one_line(tool, videos, tmp_path):
    config = CONFIGS / PICO
    train = ('train', config, '--work-dir', tmp_path, '--cfg-options', *SHORT)
    (tmp_path / 'list.txt').write_text('00000.avi 0\n00001.avi 8\n')
    wrong = f'train_dataloader.dataset.ann_file={tmp_path / "list.txt"}'
    status, errors = tool(*train, wrong)
    assert (
        status == 1
        and "line 2: expected a path and a class from 0 to 7, got '00001.avi 8'" in errors
    )
    (tmp_path / 'list.txt').write_text('00000.avi 0\nnone.avi 1\n' * 8)
    for workers in (0, 1):
        status, errors = tool(*train, wrong, f'train_dataloader.num_workers={workers}')
        assert status == 1
        assert re.search(r'^error: video \S+none\.avi does not exist', errors, re.M)
    status, errors = tool(*train, wrong, 'train_dataloader.dataset.skip_broken=True')
    assert status == 0, errors
    logs = ''.join(log.read_text() for log in tmp_path.glob('*/*.log'))
    assert 'none.avi does not exist; skipped (1 so far)' in logs
    status, errors = tool(*train, 'model.backbone.attention=flex')
    assert status == 1 and "no attention 'flex' for videos (known: auto, eager, sdpa)" in errors
    status, errors = tool(
        'test', config, tmp_path / 'epoch_1.pth', '--tta', '--cfg-options', SHORT[-1]
    )
    assert status == 1 and '--tta: default_scope mmengine' in errors


@pytest.mark.slow
def test_two_processes_train_at_a_scaled_rate(tmp_path, subprocess_environment, videos):
    environment = {
        **subprocess_environment,
        'SWINV2_DATA': str(videos),
        'PYTHON': sys.executable,
        'MASTER_PORT': '29613',
    }
    done = subprocess.run(
        ['tools/dist_train.sh', str(CONFIGS / PICO), '2', '--work-dir', tmp_path,
         '--auto-scale-lr', '--cfg-options', *SHORT, 'train_dataloader.batch_size=4'],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    trained = [record for record in records(tmp_path) if 'loss' in record]
    assert [record['step'] for record in trained] == [1, 2] and trained[0]['images_per_s'] > 0
    log = next(tmp_path.glob('*/*.log')).read_text()
    # 2 processes of 4 clips instead of 16.
    assert 'Scaling the original LR by 0.5.' in log
    assert trained[0]['lr'] == pytest.approx(0.5 * 2e-3 * 0.01)  # the warm-up starts at 1 %
