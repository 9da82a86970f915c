"""A training that is told to go saves, says so by its status, and is taken up where it was."""

import os
import signal

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from resuming import checkpoint_differences
from test_runner import ARCH
from test_tools import CLASSIFIER

from swinv2_mm.engine.preemption import PREEMPTED_STATUS
from swinv2_mm.engine.seeding import Draw

# 10 batches an epoch, of the 80 crops of conftest's data set.
CONFIG = """
_base_ = {base!r}
model = dict(backbone=dict(arch={arch}, drop_path_rate=0.3), head=dict(in_channels=128))
train_dataloader = dict(
    batch_size=8, num_workers={workers}, sampler=dict(type={sampler!r}),
    dataset=dict(pipeline=[
        dict(type='SignalWhileLoading', at={at_sample}), dict(type='SeedAugmentation'),
        dict(type='LoadCheckedImage'), dict(type='RandomFlip', prob=0.5),
        dict(type='ColorJitter', brightness=0.5), dict(type='PackInputs')]))
optim_wrapper = dict(accumulative_counts={accumulate}, {wrapper})
train_cfg = dict(_delete_=True, **{loop})
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch={by_epoch}, interval={interval}, save_best='accuracy/top1'))
log_processor = dict(by_epoch={by_epoch})
custom_hooks = [
    dict(type='EMAHook', momentum=0.1, update_buffers=True),
    dict(type='SignalInLoop', at={at})]
"""
ITERATIONS = dict(
    loop=dict(type='IterBasedTrainLoop', max_iters=11, val_interval=4),
    sampler='SeededInfiniteSampler', by_epoch=False, interval=4,
)  # fmt: skip
EPOCHS = dict(
    loop=dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1),
    sampler='SeededSampler', by_epoch=True, interval=1,
)  # fmt: skip
LAST = {False: 'iter_11.pth', True: 'epoch_2.pth'}


@HOOKS.register_module()
class SignalInLoop(Hook):
    """Sends this process a signal in the middle of a stage's iteration."""

    def __init__(self, at):
        self.stage, self.iter = at or (None, None)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.stage == 'train' and runner.iter == self.iter:
            os.kill(os.getpid(), signal.SIGUSR1)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.stage == 'val' and runner.iter == self.iter:
            os.kill(os.getpid(), signal.SIGTERM)


@TRANSFORMS.register_module()
class SignalWhileLoading(BaseTransform):
    """Sends the training a signal while it waits for a sample."""

    def __init__(self, at):
        self.entropy = at

    def transform(self, results):
        index = results['sample_idx']
        if isinstance(index, Draw) and list(index.entropy) == self.entropy:
            in_worker = torch.utils.data.get_worker_info()
            os.kill(os.getppid() if in_worker else os.getpid(), signal.SIGTERM)
        return results


@pytest.fixture
def train(tool, use_data, tmp_path):
    """Train in a folder of that name; returns the exit status."""

    def run(
        name, *arguments, settings, at=None, at_sample=None, workers=0, accumulate=1, wrapper=''
    ):
        path = tmp_path / f'{name}.py'
        path.write_text(
            CONFIG.format(
                base=str(CLASSIFIER), arch=ARCH, at=at, at_sample=at_sample, workers=workers,
                accumulate=accumulate, wrapper=wrapper, **settings,
            )
        )  # fmt: skip
        status, run.errors = tool('train', path, '--work-dir', tmp_path / name, *arguments)
        assert status in (0, PREEMPTED_STATUS), run.errors
        return status

    return run


# Validated where nothing has just been saved: the weights trained are out, their average is in.
BETWEEN_SAVES = {**ITERATIONS, 'interval': 3}
CASES = [
    (BETWEEN_SAVES, {'at': ('val', 8)}, 3, 2),
    (EPOCHS, {'at': ('train', 13)}, 4, 2),
]
SLOW_CASES = [
    (ITERATIONS, {'at': ('val', 8)}, 3, 2),
    (ITERATIONS, {'at': ('train', 5)}, 1, 0),
    (ITERATIONS, {'at_sample': [0, 8 * 6]}, 3, 0),
    (EPOCHS, {'at': ('val', 10)}, 1, 0),
    (EPOCHS, {'at_sample': [0, 1, 0, 8 * 2]}, 3, 0),
]


@pytest.mark.parametrize(
    ('settings', 'stop', 'accumulate', 'workers'),
    CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES],
    ids=lambda value: (
        'epochs'
        if value is EPOCHS
        else 'iters'
        if isinstance(value, dict) and 'loop' in value
        else None
    ),
)
def test_stopped_and_resumed_equals_uninterrupted(
    settings, stop, accumulate, workers, train, tmp_path
):
    more = {'settings': settings, 'accumulate': accumulate, 'workers': workers}
    compare(train, tmp_path, stop=stop, last=LAST[settings['by_epoch']], **more)


def test_with_a_loss_scaler_and_another_seed(train, with_loss_scaler, tmp_path):
    # It grows every second update; the seed is that of the checkpoint.
    wrapper = with_loss_scaler.format('2.0**10, growth_interval=2')
    more = {'settings': ITERATIONS, 'wrapper': wrapper, 'last': 'iter_11.pth'}
    again = ['--cfg-options', 'randomness.seed=7']
    compare(train, tmp_path, *again, stop={'at_sample': [0, 8 * 5]}, **more)
    content = torch.load(tmp_path / 'whole' / 'iter_11.pth', weights_only=False)
    assert content['optimizer']['loss_scaler']['scale'] == 2.0**15


def compare(train, tmp_path, *again, stop, last, **more):
    """Train in one go, and with a stop; the end must be the same."""
    assert train('whole', **more) == 0
    assert train('broken', **more, **stop) == PREEMPTED_STATUS
    assert not (tmp_path / 'broken' / last).exists()
    assert train('broken', '--resume', *again, **more) == 0
    assert checkpoint_differences(tmp_path / 'whole' / last, tmp_path / 'broken' / last) == []
    names = [{p.name for p in (tmp_path / n).glob('*.pth')} for n in ('whole', 'broken')]
    assert names[0] == names[1], names
