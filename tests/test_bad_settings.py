"""Settings that cannot train: one sentence before the first step; a bug keeps its traceback."""

import re
from contextlib import nullcontext

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from test_tools import CLASSIFIER, CONFIGS, DETECTOR, SHORT, TINY

import swinv2_mm.cli
from swinv2_mm.engine.preflight import check_outputs
from swinv2_mm.errors import UserError

SEGMENTOR = CONFIGS / 'segmentation' / 'upernet_swinv2-nano-w8_digits.py'
NARROW = 'model.backbone.arch=dict(embed_dim=16,depths=(1,1,1,1),num_heads=(1,2,4,8))'


@pytest.fixture
def train(use_data, tmp_path):
    def run(config, *options):
        options = [*SHORT, 'train_dataloader.persistent_workers=False', *options]
        return swinv2_mm.cli.train(config, work_dir=tmp_path / 'run', options=options)

    yield run
    assert not list(tmp_path.glob('run/*.pth'))


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('optim_wrapper.optimizer.lr=fast', 'optimizer.lr'),
        ('optim_wrapper.optimizer.lr=-1', 'optimizer.lr'),
        ('optim_wrapper.optimizer.lr=inf', 'optimizer.lr'),
        ('optim_wrapper.optimizer.weight_decay=none', 'weight_decay'),
        ('+optim_wrapper.clip_grad=dict(max_norm=big)', 'max_norm'),
        ('+optim_wrapper.clip_grad=dict(max_norm=0)', 'clip_grad=None'),
        ('optim_wrapper.optimizer.type=Adamm', 'Adamm'),
        ('train_dataloader.batch_size=0', 'train_dataloader.batch_size'),
        ('train_dataloader.batch_size=many', 'train_dataloader.batch_size'),
        ('train_dataloader.num_workers=-1', 'train_dataloader.num_workers'),
        ('train_dataloader.dataset.pipeline=[]', 'pipeline'),
        ('val_dataloader.batch_size=0', 'val_dataloader.batch_size'),
        ('+optim_wrapper.accumulative_counts=1.5', 'accumulative_counts'),
        ('train_cfg=dict(type=EpochBasedTrainLoop,max_epochs=1)', 'an epoch never ends'),
        ('val_dataloader.sampler.type=InfiniteSampler', 'an epoch never ends'),
        ('train_cfg.max_iters=0', 'max_iters'),
        ('train_cfg.max_iters=many', 'max_iters'),
        ('train_cfg.val_interval=0', 'val_interval'),
        ('param_scheduler.0.type=Linear', 'Linear'),
        ('param_scheduler.0.end=-3', 'end'),
        ('default_hooks.checkpoint.interval=often', 'checkpoint.interval'),
        ('default_hooks.checkpoint.save_best=coco/bbox_mAP', 'accuracy/top1'),
        ("custom_hooks=[dict(type='EarlyStoppingHook',monitor='top1')]", 'accuracy/top1'),
        ("param_scheduler=[dict(type='ReduceOnPlateauLR',monitor='loss')]", 'accuracy/top1'),
        ('model.head.in_channels=99', 'model.head.in_channels=256'),
        ('env_cfg=None', "no attribute 'get'"),
        ('model.head=None', 'model.head'),
        ('randomness.seed=abc', 'randomness.seed'),
    ],
)
def test_value_that_cannot_train(option, words, train):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        train(CLASSIFIER, option)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('config', 'wanted'),
    [
        (CLASSIFIER, 'model.head.in_channels=128'),
        (DETECTOR, 'model.neck.in_channels=[16,32,64,128]'),
        (SEGMENTOR, 'model.decode_head.in_channels=[16,32,64,128]'),
    ],
)
def test_narrow_backbone_before_a_wide_head(config, wanted, train):
    with pytest.raises(UserError, match=re.escape(wanted)):
        train(config, NARROW)


@pytest.mark.parametrize(
    ('name', 'loss', 'is_refused'),
    [
        ('decode_head', dict(type='mmseg.CrossEntropyLoss'), True),
        ('decode_head', dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True), False),
        ('head', dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1), True),
        ('head', dict(type='mmpretrain.CrossEntropyLoss', use_sigmoid=True), False),
    ],
)
def test_head_of_one_class(name, loss, is_refused):
    kinds = {
        'decode_head': dict(type='mmseg.FCNHead', channels=4, num_convs=1, loss_decode=loss),
        'head': dict(type='mmpretrain.LinearClsHead', loss=loss),
    }
    model = torch.nn.Module()
    model.add_module(name, MODELS.build(dict(kinds[name], in_channels=4, num_classes=1)))
    with pytest.raises(UserError, match='num_classes=2') if is_refused else nullcontext():
        check_outputs(model)


def test_fewer_images_than_a_batch(train):
    options = ['train_dataloader.batch_size=1000', 'train_dataloader.drop_last=True']
    options += ['+train_dataloader.sampler=dict(type="DefaultSampler",shuffle=True)']
    with pytest.raises(UserError, match='80 images make no batch of 1000'):
        train(CLASSIFIER, *TINY, *options)


def test_work_dir_below_a_file(use_data, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='--work-dir'):
        swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path / 'file' / 'run', options=SHORT)


@pytest.mark.parametrize('settings', [dict(show_dir='file'), dict(out='file/scores.json')])
def test_outputs_below_a_file(settings, tmp_path):
    (tmp_path / 'file').touch()
    paths = {name: tmp_path / path for name, path in settings.items()}
    with pytest.raises(UserError, match='through a file'):
        swinv2_mm.cli.test(CLASSIFIER, tmp_path / 'any.pth', **paths)


def test_batch_norm_of_one_pixel(refused, use_data, tmp_path):
    options = [*SHORT, 'train_dataloader.batch_size=1']
    line = refused('train', SEGMENTOR, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert 'train_dataloader.batch_size' in line


def test_no_workers_with_settings_for_workers(use_data, tmp_path):
    options = [*SHORT, *TINY, 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
    options += ['+train_dataloader.persistent_workers=True', '+train_dataloader.prefetch_factor=2']
    options += ['+val_dataloader.persistent_workers=True', '+val_dataloader.timeout=9']
    options += ['train_cfg.val_interval=2']
    runner = swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path, options=options)
    assert runner.iter == 2


@pytest.mark.parametrize('place', ['before_run', 'before_train', 'before_train_iter'])
@pytest.mark.parametrize('error', [KeyError, TypeError, AssertionError])
def test_bug_keeps_its_type(place, error, train):
    def fail(self, *args, **kwargs):
        raise error('a bug')

    name = f'Buggy{place}{error.__name__}'
    HOOKS.register_module(name=name, force=True)(type(name, (Hook,), {place: fail}))
    with pytest.raises(error, match='a bug'):
        train(CLASSIFIER, *TINY, f"custom_hooks=[dict(type='{name}')]")
