"""Known noise stays off the console, everything else gets there; scalars go where a config says."""

import importlib.util
import logging
import re
import sys
import warnings
from types import ModuleType

import mmengine
import pytest
from mmengine.config import Config

import swinv2_mm.models  # noqa: F401
from swinv2_mm.engine.console import KnownNoise, quiet_console
from swinv2_mm.engine.log_backends import add_log_backends
from swinv2_mm.errors import UserError

LEAF = 'configs/classification/swinv2-nano-w8_digits.py'
SCOPE = 'Failed to search registry with scope "{}" in the "{}" registry tree. As a workaround, so.'


@pytest.mark.parametrize(
    'message, passes',
    [
        (SCOPE.format('mmseg', 'function'), False),
        (SCOPE.format('mmseg', 'model'), True),
        (SCOPE.format('mine', 'function'), True),
        ('The prefix is not set in metric class IoUMetric.', False),
        ('The prefix is not set in metric class IoUMetric, so it fails.', True),
        ('Config:\nmodel = dict()', False),
        ('Config: not found', True),
        ('Not resumed from iter_3.pth: it is empty', True),
    ],
)
def test_only_known_messages_are_held_back(message, passes):
    record = logging.LogRecord('x', logging.WARNING, 'x.py', 1, message, None, None)
    assert KnownNoise().filter(record) is passes


@pytest.mark.parametrize(
    'module, message, passes',
    [
        (
            'mmseg.models.losses.cross_entropy_loss',
            'Default ``avg_non_ignore`` is False, if',
            False,
        ),
        ('mmseg.models.losses.cross_entropy_loss', 'class_weight has a NaN', True),
        ('mine.losses', 'Default ``avg_non_ignore`` is False, if', True),
        ('mmseg.models.losses.cross_entropy_loss_2', 'Default ``avg_non_ignore`` is False', True),
        ('mmdet.evaluation.metrics.faster_coco_metric', 'faster_coco_eval is not installed', False),
    ],
)
def test_only_known_warnings_are_held_back(module, message, passes):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with quiet_console():
            warnings.warn_explicit(message, UserWarning, 'file.py', 1, module=module)
    assert bool(caught) is passes


def test_only_known_prints_are_held_back(capsys):
    original = mmengine.logging.print_log
    with quiet_console():
        mmengine.logging.print_log('Could not import OneDL', level=logging.DEBUG)
        mmengine.logging.print_log('Could not import OneDL: no such file')
    assert capsys.readouterr().out == 'Could not import OneDL: no such file\n'
    assert mmengine.logging.print_log is original


SHORT = (
    'model.backbone.arch.depths=(1,1,1,1)',
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'default_hooks.logger.interval=2',
)


def test_console_of_a_training(tool, use_data, tmp_path):
    status, errors = tool('train', LEAF, '--work-dir', tmp_path, '--cfg-options', *SHORT)
    assert status == 0
    lines = tool.printed.splitlines()
    print(tool.printed, errors)
    assert len(lines) + len(errors.splitlines()) <= 20
    assert sum('torch' in line and 'seed 0' in line for line in lines) == 1
    assert sum('attention: stages 0-3 grouped (sdpa on a CPU)' in line for line in lines) == 1
    line = next(line for line in lines if '[4/4]' in line and 'train' in line)
    found = dict(re.findall(r'(\w+): ([\d.:e+-]+)', line))
    assert found['eta'] == '0:00:00'
    assert float(found['images_per_s']) == pytest.approx(4 / float(found['time']), rel=0.05)
    assert 100 < float(found['memory']) < 64_000  # MB
    (log_file,) = tmp_path.glob('*/*.log')
    kept = log_file.read_text()
    assert 'System environment' in kept and 'param_scheduler = [' in kept


@pytest.mark.skipif(
    importlib.util.find_spec('tensorboard') is None, reason='tensorboard is not installed'
)
def test_tensorboard_by_one_option(tool, use_data, tmp_path):
    options = (*SHORT, 'log_to=tensorboard')
    assert tool('train', LEAF, '--work-dir', tmp_path, '--cfg-options', *options)[0] == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = tmp_path.glob('*/vis_data/events.out.tfevents.*')
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars('images_per_s')] == [2, 4]


def test_backends_are_added_to_those_there_are(monkeypatch):
    for name in ('tensorboard', 'wandb'):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    cfg = Config.fromfile(LEAF)
    assert cfg.log_to == []
    cfg.log_to = ['tensorboard', 'wandb']
    add_log_backends(cfg)
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kinds == ['LocalVisBackend', 'TensorboardVisBackend', 'WandbVisBackend']
    assert cfg.visualizer.vis_backends[2].init_kwargs.mode == 'offline'


@pytest.mark.parametrize('name, message', [('wandb', 'pip install wandb'), ('visdom', 'unknown')])
def test_what_is_missing_is_one_line(monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, 'wandb', None)  # as if it were not installed
    with pytest.raises(UserError, match=message):
        add_log_backends(Config(dict(log_to=name, visualizer=dict(vis_backends=[]))))
