"""What protects a training stays on, whatever hooks a user's config has."""

import os
import re
import signal
import types
from pathlib import Path

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from test_tools import CLASSIFIER, SHORT, TINY

import swinv2_mm.cli
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.launch import build_runner
from swinv2_mm.engine.non_finite import NonFiniteHook
from swinv2_mm.engine.preemption import PREEMPTED_STATUS
from swinv2_mm.engine.throughput import peak_memory_bytes
from swinv2_mm.errors import UserError

COMMON = [*SHORT, *TINY, 'train_dataloader.persistent_workers=False']
COMMON += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
COMMON += ['default_hooks.checkpoint.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=1']
# Without a guard the loss of the second iteration is NaN, and so is what is saved.
DIVERGING = [*COMMON, 'train_cfg.max_iters=4', 'optim_wrapper.optimizer.lr=1e37']
DIVERGING += ['param_scheduler.0.end=1', 'param_scheduler.1.begin=1']


@HOOKS.register_module()
class StopAtFirst(Hook):
    """Tells this process to stop in its first iteration."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@HOOKS.register_module()
class OwnNonFiniteHook(NonFiniteHook):
    """A user's own kind of a standard hook."""


@HOOKS.register_module()
class OwnCheckpointHook(CheckpointHook):
    """A user's own kind of MMEngine's hook."""


def log_of(folder):
    return '\n'.join(path.read_text() for path in folder.glob('*/*.log'))


def finite(path):
    values = torch.load(path, weights_only=False)['state_dict'].values()
    return all(bool(value.isfinite().all()) for value in values)


@pytest.mark.parametrize(
    'line',
    [
        'custom_hooks=[]',
        'custom_hooks=None',
        "custom_hooks=[dict(type='EMAHook',momentum=0.1)]",
        'default_hooks.checkpoint.type=CheckpointHook',
        'default_hooks.checkpoint=None',
    ],
)
def test_diverging_training_stops_whatever_the_hooks(line, use_data, tmp_path):
    options = [*DIVERGING, line]
    with pytest.raises(UserError, match='not finite'):
        swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path, options=options)
    saved = list(tmp_path.glob('*.pth'))
    assert all(map(finite, saved)) and (saved or line == 'default_hooks.checkpoint=None')
    assert 'Standard hooks: IterationSeedHook, ThroughputHook' in log_of(tmp_path)


def test_guard_that_is_off_by_name_is_logged(use_data, tmp_path):
    options = [*DIVERGING, '+hooks_off=NonFiniteHook', 'train_cfg.max_iters=3']
    swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path, options=options)
    assert not finite(tmp_path / 'iter_3.pth')
    assert 'off: NonFiniteHook (hooks_off)' in log_of(tmp_path)


def test_plain_checkpoint_hook_is_saved_at_preemption(tool, use_data, tmp_path):
    options = [*COMMON, 'default_hooks.checkpoint.type=CheckpointHook']
    options += ['custom_hooks=[dict(type=StopAtFirst)]', 'default_hooks.checkpoint.interval=2']
    status, errors = tool('train', CLASSIFIER, '--work-dir', tmp_path, '--cfg-options', *options)
    assert status == PREEMPTED_STATUS, errors
    saved = torch.load(tmp_path / 'preempted.pth', weights_only=False)
    assert saved['meta']['iter'] == 1
    assert 'SafeCheckpointHook in place of CheckpointHook' in log_of(tmp_path)


@pytest.mark.parametrize(
    ('lines', 'on', 'off'),
    [
        ([], 'NonFiniteHook, SafeCheckpointHook', None),
        (["custom_hooks=[dict(type='NonFiniteHook',action='skip')]"], 'action=skip', None),
        (["custom_hooks=[dict(type='OwnNonFiniteHook')]"], 'OwnNonFiniteHook', None),
        (['default_hooks.checkpoint=None'], 'NonFiniteHook', 'PreemptionHook'),
        (['default_hooks.checkpoint.type=OwnCheckpointHook'], 'NonFiniteHook', 'PreemptionHook'),
        (['+hooks_off=[PreemptionHook,ThroughputHook]'], 'NonFiniteHook', 'ThroughputHook'),
    ],
)
def test_each_hook_is_there_once_and_named(lines, on, off, use_data, tmp_path):
    runner = build_runner(load_config(str(CLASSIFIER), [*COMMON, *lines]), work_dir=tmp_path)
    summary = runner.hook_summary
    shown_on, _, shown_off = summary.partition('; off: ')
    assert on in shown_on and (off is None or off in shown_off), summary
    names = [type(hook).__name__ for hook in runner.hooks]
    for name in re.findall(r'\w+Hook', shown_on.partition(' in place')[0]):
        assert names.count(name) == 1
    assert not set(re.findall(r'(\w+Hook) \(', shown_off)) & set(names)
    assert sum(isinstance(hook, NonFiniteHook) for hook in runner.hooks) == 1


@pytest.mark.parametrize('plain', ['DefaultSampler', 'InfiniteSampler'])
def test_sampler_of_a_training_carries_seeds(plain, use_data, tmp_path):
    line = f'train_dataloader.sampler=dict(type={plain!r},shuffle=True)'
    runner = build_runner(load_config(str(CLASSIFIER), [*COMMON, line]), work_dir=tmp_path)
    loader = runner.build_dataloader(runner.cfg.train_dataloader, seed=0)
    index = next(iter(loader.sampler))
    assert index.entropy[0] == 0


def test_hooks_off_is_validated(tmp_path):
    with pytest.raises(UserError, match='NonFiniteHook'):
        build_runner(load_config(str(CLASSIFIER), ['+hooks_off=NanGuard']), work_dir=tmp_path)


@pytest.mark.parametrize('constructor', ['SwinV2OptimWrapperConstructor', None])
def test_decay_of_exempt_parameters_is_logged(constructor, use_data, tmp_path):
    cfg = load_config(str(CLASSIFIER), [*COMMON, 'train_cfg.max_iters=1'])
    cfg.optim_wrapper.pop('constructor')
    if constructor:
        cfg.optim_wrapper.constructor = constructor
    runner = swinv2_mm.cli.train(cfg, work_dir=tmp_path)
    decaying = [
        parameter
        for group in runner.optim_wrapper.optimizer.param_groups
        for parameter in group['params']
        if group['weight_decay']
    ]
    scale = runner.model.backbone.layers[0].blocks[0].attn.logit_scale
    is_decayed = any(parameter is scale for parameter in decaying)
    assert is_decayed == (constructor is None)
    assert ('weight decay applies to' in log_of(tmp_path)) == is_decayed


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='Linux')
def test_peak_memory_is_that_of_this_process(monkeypatch):
    """A run reported 2.4 GB of the 1.8 GB that it took: the process that started it held them."""
    import resource

    true = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(
        'resource.getrusage', lambda _: types.SimpleNamespace(ru_maxrss=true + 2**30)
    )
    assert peak_memory_bytes() / 1024 <= true + 2**16
