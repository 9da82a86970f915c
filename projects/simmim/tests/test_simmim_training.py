"""Pre-training through the project's tools, and what follows it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.curves import read_records
from swinv2_mm.config.file import load_config

CONFIGS = ROOT / 'projects/simmim/configs'
PRETRAINING = CONFIGS / 'simmim_swinv2-nano-w6_flowers-facade-96.py'
FOLDERS = {
    'flowers/train/rose': 6,
    'flowers/train/tulip': 6,
    'flowers/val/rose': 2,
    'flowers/val/tulip': 2,
    'facade/images/training': 4,
    'facade/images/validation': 3,
}
NARROW = 'model.backbone.arch=dict(embed_dim=16,depths=(1,2,1,1),num_heads=(1,2,4,8))'
SHORT = (
    NARROW,
    'model.neck.in_channels=128',
    'train_dataloader.batch_size=8',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.visualization.interval=3',
    'custom_hooks.0.interval=2',
    'train_cfg.val_interval=1',
)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Smooth pictures of two colours, in the folders of the recipes."""
    root, draw = tmp_path_factory.mktemp('photographs'), np.random.default_rng(0)
    for folder, number in FOLDERS.items():
        (root / folder).mkdir(parents=True)
        for i in range(number):
            small = Image.fromarray(draw.integers(0, 255, (3, 4, 3), np.uint8))
            name = f'{folder.replace("/", "-")}-{i}.jpg'
            small.resize((130, 100), Image.BICUBIC).save(root / folder / name)
    return root


@pytest.fixture
def pretrain(photographs, tool, monkeypatch, tmp_path):
    """Run the recipe, narrow and short; returns the work dir."""
    monkeypatch.setenv('SWINV2_DATA', str(photographs))

    def run(name, *options, switches=(), epochs=2):
        work_dir = tmp_path / name
        options = (*SHORT, f'train_cfg.max_epochs={epochs}', *options)
        status, errors = tool(
            'train', PRETRAINING, '--work-dir', work_dir, *switches, '--cfg-options', *options
        )
        assert status == 0, errors
        return work_dir

    return run


@pytest.fixture(scope='module')
def finished_runs():
    return []


@pytest.fixture
def finished(finished_runs, pretrain):
    """A run of two epochs, the same for all tests of this module."""
    if not finished_runs:
        finished_runs.append(pretrain('finished'))
    return finished_runs[0]


def state_of(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_training_validation_and_test_by_path(finished, tool, tmp_path):
    records = read_records(finished)
    training = [record for record in records if 'loss' in record]
    assert len(training) == 4  # 16 pictures, 2 epochs
    assert all(record['images_per_s'] > 0 for record in training)
    assert re.search(r'images_per_s: [\d.]+', next(finished.glob('*/*.log')).read_text())
    signals = [record for record in records if 'signal/main/0.0' in record]
    assert [record['step'] for record in signals] == [1, 2, 4]
    names = {name for name in signals[0] if name.startswith('signal/main')}
    assert names == {f'signal/main/{layer}' for layer in ('0.0', '1.0', '1.1', '2.0', '3.0')}
    validations = [record for record in records if 'masked_l1' in record]
    assert len(validations) == 2
    # Pictures of the 1st, 4th and 7th of 7, at each validation.
    assert len(list(finished.glob('*/vis_data/vis_image/*.png'))) == 6

    # The last checkpoint, by its path, gives the last validation's figures: masks are fixed.
    out, pictures = tmp_path / 'scores.json', tmp_path / 'pictures'
    switches = ['--work-dir', tmp_path / 'test', '--out', out, '--show-dir', pictures]
    status, errors = tool(
        'test', PRETRAINING, finished / 'epoch_2.pth', *switches, '--cfg-options', *SHORT
    )
    assert status == 0, errors
    metrics = json.loads(out.read_text())['metrics']
    for name in ('masked_l1', 'mean_colour_l1'):
        assert metrics[name] == pytest.approx(validations[-1][name], rel=1e-6)
    assert len(list(pictures.rglob('*.png'))) == 7


def test_report_says_that_it_is_not_of_a_pretraining(finished, tool):
    status, errors = tool('report', finished)
    assert status == 1 and 'Traceback' not in errors
    assert 'tells classes apart' in errors.strip().splitlines()[-1]


def test_learning_rate_follows_the_batch(finished, pretrain):
    """The recipe is for 32 images; these runs have 8."""
    scaled = pretrain('scaled', switches=['--auto-scale-lr'], epochs=1)
    one, other = ([r['lr'] for r in read_records(run) if 'lr' in r] for run in (finished, scaled))
    assert len(other) == 2 and other == pytest.approx([rate * 8 / 32 for rate in one[:2]])


@pytest.mark.slow
def test_resumed_run_ends_as_an_uninterrupted_one(pretrain):
    whole, broken = pretrain('whole'), pretrain('broken', epochs=1)
    assert pretrain('broken', switches=['--resume']) == broken
    one, other = state_of(whole / 'epoch_2.pth'), state_of(broken / 'epoch_2.pth')
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    'config, options',
    [
        (CONFIGS / 'swinv2-nano-w6_15e_flowers-96.py', ['model.head.in_channels=128']),
        (
            ROOT / 'configs/detection/cascade-mask-rcnn_swinv2-nano-w12_facade.py',
            ['model.neck.in_channels=[16,32,64,128]'],
        ),
        (
            ROOT / 'configs/segmentation/upernet_swinv2-nano-w8_facade.py',
            ['model.decode_head.in_channels=[16,32,64,128]', 'model.auxiliary_head.in_channels=64'],
        ),
    ],
    ids=['classification', 'detection', 'segmentation'],
)
def test_every_task_starts_from_a_pretrained_encoder(config, options, tmp_path):
    pretraining = load_config(str(PRETRAINING), SHORT[:2])
    checkpoint = tmp_path / 'epoch_80.pth'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(pretraining.model)
    model.init_weights()
    torch.save({'state_dict': model.state_dict(), 'meta': {'epoch': 80}}, checkpoint)
    start = f'model.backbone.init_cfg=dict(type="Pretrained",checkpoint="{checkpoint}")'
    cfg = load_config(str(config), [NARROW, *options, start])
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        other = MODELS.build(cfg.model)
    other.init_weights()
    for name, value in model.backbone.named_parameters():
        assert torch.equal(other.backbone.get_parameter(name), value), name
    # The reference window is the pre-training's, whatever the window now.
    assert other.backbone.get_pretrained_window_sizes() == ((6, 6), (6, 6), (6, 6), (3, 3))


def test_fine_tuning_from_it_trains(finished, tool, tmp_path):
    options = (
        NARROW, 'model.head.in_channels=128', 'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0', 'train_dataloader.batch_size=4', 'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1', 'default_hooks.logger.interval=1',
        'model.head.num_classes=2', 'model.data_preprocessor.num_classes=2',
        f'model.backbone.init_cfg=dict(type="Pretrained",checkpoint="{finished}/epoch_2.pth")',
        '+optim_wrapper.paramwise_cfg=dict(layer_decay_rate=0.5)',
    )  # fmt: skip
    status, errors = tool(
        'train', CONFIGS / 'swinv2-nano-w6_15e_flowers-96.py', '--work-dir', tmp_path / 'tuned',
        '--cfg-options', *options,
    )  # fmt: skip
    assert status == 0, errors
    log = next((tmp_path / 'tuned').glob('*/*.log')).read_text()
    assert 'loaded from own weights trained at windows 6, 6, 6, 3' in log
    # Five blocks and the stem below the head: rates from lr to lr / 64.
    assert 'learning rates 1.56e-05 to 0.001' in log
    assert any('accuracy/top1' in record for record in read_records(tmp_path / 'tuned'))


def test_pictures_of_the_tools(finished, photographs, tool, tmp_path):
    run, weights = finished, finished / 'epoch_2.pth'
    images = sorted(photographs.glob('facade/images/validation/*.jpg'))[:2]
    out = tmp_path / 'reconstructions.png'
    reconstruct = '../projects/simmim/tools/reconstruct'
    options = ['--cfg-options', *SHORT[:2]]
    status, errors = tool(reconstruct, PRETRAINING, weights, *images, '--out', out, *options)
    assert status == 0, errors
    with Image.open(out) as picture:
        assert picture.width > 600 and picture.height > 500
    status, errors = tool(
        '../projects/simmim/tools/signal_of_runs', run, run, '--out', tmp_path / 'signal.png'
    )
    assert status == 0, errors
    assert (tmp_path / 'signal.png').exists()

    # A user's mistakes.
    for arguments, message in (
        ([PRETRAINING, weights, 'none.jpg', '--out', out, *options], 'does not exist'),
        ([PRETRAINING, run / 'none.pth', *images, '--out', out, *options], 'cannot read'),
        (
            [CONFIGS / 'swinv2-nano-w6_15e_flowers-96.py', 'x.pth', *images, '--out', out],
            'not a MaskedImageModel',
        ),
        (
            [PRETRAINING, weights, *images, '--out', out, *options,
             'test_dataloader.dataset.datasets.0.pipeline.3.input_size=32'],
            'do not fit images',
        ),
    ):  # fmt: skip
        status, errors = tool(reconstruct, *arguments)
        assert status == 1 and message in errors and 'Traceback' not in errors, errors
    status, errors = tool(
        '../projects/simmim/tools/signal_of_runs', run, '--step', 7, '--out', tmp_path / 'x.png'
    )
    assert status == 1 and 'logged amplitudes at 1, 2, 4' in errors


@pytest.mark.slow
def test_two_processes_train_and_test_as_one_does(photographs, subprocess_environment, tmp_path):
    environment = {
        **subprocess_environment, 'SWINV2_DATA': str(photographs), 'PYTHON': sys.executable,
        'MASTER_PORT': '29617',
    }  # fmt: skip

    def run(*command):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]

    work_dir = tmp_path / 'run'
    options = ['--cfg-options', *SHORT, 'train_dataloader.batch_size=4', 'train_cfg.max_epochs=1']
    run('tools/dist_train.sh', PRETRAINING, '2', '--work-dir', work_dir, *options)
    training = [record for record in read_records(work_dir) if 'loss' in record]
    assert len(training) == 2  # 16 pictures, 2 processes of 4
    assert '; 2 x CPU; ' in next(work_dir.glob('*/*.log')).read_text()
    scores = {}
    for number in ('1', '2'):
        out = tmp_path / f'{number}.json'
        run(
            'tools/dist_test.sh', PRETRAINING, work_dir / 'epoch_1.pth', number,
            '--work-dir', tmp_path / number, '--out', out, *options,
        )  # fmt: skip
        scores[number] = json.loads(out.read_text())['metrics']
    assert scores['1'] == pytest.approx(scores['2'], rel=1e-6)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_both_sides_of_the_stability_comparison(version, photographs, tool, monkeypatch, tmp_path):
    monkeypatch.setenv('SWINV2_DATA', str(photographs))
    config = CONFIGS / f'simmim_swin{version}-deep-w6_flowers-facade-96.py'
    options = (
        'train_cfg.max_iters=2', 'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False', 'default_hooks.checkpoint.interval=2',
        'default_hooks.logger.interval=1', 'custom_hooks.0.interval=2',
    )  # fmt: skip
    run = tmp_path / version
    status, errors = tool('train', config, '--work-dir', run, '--cfg-options', *options)
    assert status == 0, errors
    _, signal = [record for record in read_records(run) if 'signal/main/0.0' in record]
    main = [value for name, value in signal.items() if name.startswith('signal/main/')]
    assert len(main) == 24 and all(0 < value < 100 for value in main)
    assert sum(name.startswith(('signal/attention/', 'signal/mlp/')) for name in signal) == 48
