"""Known noise stays off the console, everything else gets there; scalars go where a config says."""

import importlib.util
import logging
import os
import pickle
import re
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mmengine
import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import VISBACKENDS

import swinv2_mm.cli
import swinv2_mm.models
from swinv2_mm.config.file import load_config
from swinv2_mm.data_check.discovery import DISCOVERIES
from swinv2_mm.engine.console import KnownNoise, quiet_console
from swinv2_mm.engine.launch import build_runner
from swinv2_mm.engine.log_backends import add_log_backends
from swinv2_mm.engine.log_lines import INDENT, WIDTH, ShortLogProcessor
from swinv2_mm.engine.prediction_images import backends_of_images
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
        (f'\n+-+\n{"| a |" * 9000}{"x" * 90}', True),
        ('\n+-+\n' + '| a |\n' * 30, True),
        ('\n+-+\n' + '| a |\n' * 60, False),
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


def test_command_called_from_python_is_quiet(tmp_path, monkeypatch, capsys):
    def discover(root):
        mmengine.logging.print_log('Could not import OneDL', level=logging.DEBUG)
        raise UserError('no data')

    monkeypatch.setitem(DISCOVERIES, 'segmentation', discover)
    with pytest.raises(UserError, match='no data'):
        swinv2_mm.cli.new('segmentation', data=tmp_path, out=tmp_path / 'leaf.py')
    assert capsys.readouterr().out == ''
    assert pickle.loads(pickle.dumps(swinv2_mm.cli.new)) is swinv2_mm.cli.new


def test_runs_of_one_second_have_log_files_of_their_own(use_data, tmp_path, monkeypatch):
    clock = SimpleNamespace(time=lambda: 0.0, localtime=time.localtime, strftime=time.strftime)
    monkeypatch.setattr('mmengine.runner.runner.time', clock)
    for name in ('a', 'b'):
        runner = build_runner(load_config(LEAF), work_dir=tmp_path / name)
        assert Path(runner.logger.log_file).is_relative_to(tmp_path / name)


SHORT = (
    'model.backbone.arch.depths=(1,1,1,1)',
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'default_hooks.logger.interval=2',
)


def test_console_of_a_training(tool, use_data, tmp_path):
    (tmp_path / 'best_of_an_earlier_training.pth').touch()
    status, errors = tool('train', LEAF, '--work-dir', tmp_path, '--cfg-options', *SHORT)
    assert status == 0
    lines = tool.printed.splitlines()
    print(tool.printed, errors)
    assert len(lines) + len(errors.splitlines()) <= 20
    assert 'swinv2-nano-w8_digits.py' in lines[0], 'what is run, before anything is imported'
    assert sum('1 x CPU, float32, seed 0' in line for line in lines) == 1
    assert sum('attention: stages 0-3 kept (sdpa on a CPU)' in line for line in lines) == 1
    assert all(len(line) <= WIDTH or str(tmp_path) in line or LEAF in line for line in lines)
    line = next(line for line in lines if 'Iter(train) [4/4]  lr: 4.' in line)
    shown = re.search(r'eta: 0:00:00  .* (\S+) images/s  RAM (\S+) GB', line)
    speed, memory = map(float, shown.groups())
    assert 0.1 < memory < 64
    (log_file,) = tmp_path.glob('*/*.log')
    kept = log_file.read_text()
    assert 'System environment' in kept and ' - Config:' in kept
    whole = next(line for line in kept.splitlines() if '[4/4]' in line and 'train' in line)
    found = dict(re.findall(r'(\w+): ([\d.:e+-]+)', whole))
    assert float(found['images_per_s']) == pytest.approx(4 / float(found['time']), rel=0.05)
    assert float(found['images_per_s']) == pytest.approx(speed, abs=0.06)
    names = [line.split()[1] for line in lines[lines.index('Next:') + 1 :]]
    assert [name.rpartition('/')[2] for name in names] == ['test.py', 'report.py', 'infer.py']
    assert sum('iter_4.pth' in line for line in lines[lines.index('Next:') :]) == 2


def _runner(mode, **scalars):
    hub = MessageHub(mode)
    for name, values in scalars.items():
        for value in values:
            hub.update_scalar(f'{mode}/{name}', value)
    hub.update_info('eta', 3723)
    loader = range(1_000_000)
    return SimpleNamespace(
        message_hub=hub, max_iters=1_000_000, iter=123_455, epoch=1, _train_loop=None,
        train_dataloader=loader, val_dataloader=loader, val_loop=SimpleNamespace(dataloader=loader),
    )  # fmt: skip


def test_a_line_of_a_cascade_is_short():
    losses = {f's{i}.loss_{kind}': [1.0 + i] for i in range(3) for kind in ('cls', 'bbox', 'mask')}
    runner = _runner(
        'train', loss=[19.5], loss_rpn_cls=[0.5], loss_rpn_bbox=[0.25], grad_norm=[7.0], lr=[1e-4],
        base_lr=[1e-4], time=[1.0], data_time=[0.1], images_per_s=[123.4], memory=[2048], **losses,
    )  # fmt: skip
    _, line = ShortLogProcessor(by_epoch=False).get_log_after_iter(runner, 123_455, 'train')
    assert line.short.startswith('Iter(train) [ 123456/1000000]  lr: 1.0000e-04  eta: 1:02:03  ')
    # Only as many parts of the loss as there is room for.
    assert '  loss: 19.5000 (cls 6)  123.4 images/s' in line.short
    assert len(line.short) <= WIDTH - len(INDENT) and 's2.loss_mask: 3.0000' in line


def test_metrics_say_which_is_the_best_so_far():
    runner = _runner(
        'val', time=[1.0], data_time=[0.1], dog_precision=[0.9],
        **{'coco/bbox_mAP': [0.2, 0.1], 'coco/bbox_mAP_l': [-1, -1], 'coco/segm_mAP': [0.1, 0.2]},
    )  # fmt: skip
    _, line = ShortLogProcessor(by_epoch=False).get_log_after_epoch(runner, 9, 'val')
    boxes, masks = line.short.splitlines()
    assert boxes.startswith('Iter(val)') and boxes.endswith('coco/bbox_mAP: 0.1000')
    assert masks.strip() == 'coco/segm_mAP: 0.2000 (best)'


def test_pycocotools_is_quiet(capsys):
    coco = pytest.importorskip('pycocotools.coco')
    with quiet_console():
        api = coco.COCO()
        api.createIndex()
        api.dataset['info'] = {'year': 2026}
        api.info()
    assert capsys.readouterr().out == 'year: 2026\n'


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
    # Some images of the validation set, drawn beside the ground truth.
    images = accumulator.Tags()['images']
    assert sorted(images) == [f'val/{number}' for number in range(8)]
    (event,) = accumulator.Images('val/1')
    assert event.step == 4 and (event.width, event.height) == (960, 480)


def test_backends_are_added_to_those_there_are(monkeypatch):
    names = ['tensorboard', 'wandb', 'aim', 'clearml']
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.delenv('CLEARML_OFFLINE_MODE', raising=False)
    cfg = Config.fromfile(LEAF)
    assert cfg.log_to == []
    cfg.log_to = names
    add_log_backends(cfg)
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    made = ('Local', 'Tensorboard', 'Wandb', 'Aim', 'ClearML')
    expected = [f'{name}VisBackend' for name in made]
    assert kinds == expected and backends_of_images(cfg) == expected[1:]
    assert all(VISBACKENDS.get(kind) is not None for kind in kinds)
    assert cfg.visualizer.vis_backends[2].init_kwargs.mode == 'offline'
    assert os.environ.pop('CLEARML_OFFLINE_MODE') == '1'


@pytest.mark.parametrize('name, message', [('wandb', 'pip install wandb'), ('visdom', 'unknown')])
def test_what_is_missing_is_one_line(monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, 'wandb', None)  # as if it were not installed
    with pytest.raises(UserError, match=message):
        add_log_backends(Config(dict(log_to=name, visualizer=dict(vis_backends=[]))))
