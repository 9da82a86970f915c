"""A loss that is not finite is explained, and reaches neither weights nor their average."""

import json
import math

import pytest
import torch
from conftest import only_line
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from resuming import differences
from test_runner import ARCH
from test_tools import CLASSIFIER

CONFIG = """
_base_ = {base!r}
model = dict(
    backbone=dict(arch={arch}), head=dict(in_channels=128),
    neck=[_base_.model.neck, dict(
        type='LinearNeck', in_channels=128, out_channels=128, gap_dim=0,
        norm_cfg=dict(type='BN1d'))])
train_dataloader = dict(
    batch_size=4, num_workers=0,
    dataset=dict(pipeline=[
        dict(type='LoadCheckedImage'), dict(type='PackInputs'), dict(type='Poison', at={at})]))
optim_wrapper = dict(accumulative_counts={accumulate}, {wrapper})
train_cfg = dict(max_iters=6)
val_dataloader = val_cfg = val_evaluator = None
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1))
custom_hooks = [
    dict(type='NonFiniteHook', action={action!r}, max_skips={max_skips}),
    dict(type='EMAHook', update_buffers=True), dict(type='BrokenGradient', at={at_gradient})]
"""
BATCH = 4


@HOOKS.register_module()
class BrokenGradient(Hook):
    """Makes one gradient infinite in an iteration, while the loss stays what it is."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            parameter = runner.model.head.fc.bias
            handle = parameter.register_hook(
                lambda gradient: (handle.remove(), torch.full_like(gradient, math.inf))[1]
            )


@TRANSFORMS.register_module()
class Poison(BaseTransform):
    """Makes pixels NaN in the samples that are drawn at some positions."""

    def __init__(self, at):
        self.at = at

    def transform(self, results):
        if results['data_samples'].sample_idx.entropy[-1] in self.at:
            results['inputs'] = results['inputs'].float()
            results['inputs'][:, :8] = math.nan
        return results


@pytest.fixture
def train(tool, use_data, tmp_path):
    def run(
        name, at=(), *, at_gradient=None, wrapper='', action='stop', max_skips=10, accumulate=1
    ):
        config = tmp_path / f'{name}.py'
        config.write_text(
            CONFIG.format(
                base=str(CLASSIFIER), arch=ARCH, at=list(at), at_gradient=at_gradient,
                wrapper=wrapper, action=action, max_skips=max_skips, accumulate=accumulate,
            )
        )  # fmt: skip
        return tool('train', config, '--work-dir', tmp_path / name)

    return run


def training(path):
    content = torch.load(path, weights_only=False)
    return {key: content[key] for key in ('state_dict', 'ema_state_dict', 'optimizer')}


def num_updates(path):
    steps = {int(state['step']) for state in training(path)['optimizer']['state'].values()}
    assert len(steps) == 1
    return steps.pop()


def is_finite(path):
    content = training(path)
    parts = (*content['state_dict'].values(), *content['ema_state_dict'].values())
    return all(value.isfinite().all() for value in parts)


def test_it_stops_and_says_where_it_comes_from(train, tmp_path):
    status, errors = train('run', [2 * BATCH + 1])
    assert status == 1
    line = only_line(errors)
    path = tmp_path / 'run' / 'non_finite' / 'iter_3.json'
    assert 'iteration 3' in line and str(path) in line
    report = json.loads(path.read_text())
    (iteration,) = report['ranks']
    assert report['iteration'] == 3 and iteration['loss'] == 'nan'
    assert iteration['loss_terms'] == {'loss': 'nan'}
    assert len({image['img_path'] for image in iteration['images']}) == BATCH
    # The image is broken, not the model.
    assert iteration['first_non_finite_module'] == 'data_preprocessor'
    assert iteration['activation_norms']['head.fc'] == 'nan'
    assert report['gradient_norms']['head.fc.weight'] == 'nan'
    assert report['seed'] == 0 and 'NonFiniteHook' in report['config']
    # What was saved before is what a healthy run has saved.
    status, errors = train('healthy')
    assert status == 0 and 'Warning' not in errors, errors
    saved = [training(tmp_path / name / 'iter_2.pth') for name in ('run', 'healthy')]
    assert differences(*saved) == []
    assert not (tmp_path / 'run' / 'iter_3.pth').exists()


@pytest.mark.parametrize('accumulate', [1, 2])
def test_it_can_leave_the_update_out(accumulate, train, tmp_path):
    # In the third iteration; of two that are accumulated, the first.
    status, errors = train('run', [2 * BATCH], action='skip', max_skips=1, accumulate=accumulate)
    assert status == 0, errors
    folder = tmp_path / 'run'
    before, after = (training(folder / f'iter_{i}.pth') for i in (2, 3))
    # EMAHook saves what is trained under the name of the average, and the reverse.
    kept = [
        {k: v for k, v in part['ema_state_dict'].items() if k.startswith('module.')}
        for part in (before, after)
    ]
    assert any('running_mean' in name for name in kept[0])
    assert differences(*kept) == []
    assert differences(before['optimizer']['state'], after['optimizer']['state']) == []
    assert is_finite(folder / 'iter_6.pth')
    assert num_updates(folder / 'iter_6.pth') == 6 // accumulate - 1


def test_it_leaves_out_only_so_many(train):
    status, errors = train('run', [0, BATCH, 2 * BATCH], action='skip', max_skips=2)
    assert status == 1 and 'left out' in only_line(errors)


def test_a_gradient_alone_is_enough(train, tmp_path):
    status, errors = train('run', at_gradient=1)
    assert status == 1 and 'iteration 2' in only_line(errors)
    report = json.loads((tmp_path / 'run' / 'non_finite' / 'iter_2.json').read_text())
    norms = report['gradient_norms']
    assert norms.pop('head.fc.bias') == 'inf' and all(isinstance(n, float) for n in norms.values())


def test_what_the_loss_scaler_skips_is_not_reported(train, with_loss_scaler, tmp_path):
    status, errors = train('run', at_gradient=2, wrapper=with_loss_scaler.format(2.0**16))
    assert status == 0, errors
    assert not (tmp_path / 'run' / 'non_finite').exists()
    scaler = training(tmp_path / 'run' / 'iter_6.pth')['optimizer']['loss_scaler']
    assert scaler['scale'] == 2.0**15 and num_updates(tmp_path / 'run' / 'iter_6.pth') == 5


def test_with_a_loss_scaler_the_loss_is(train, with_loss_scaler, tmp_path):
    wrapper = with_loss_scaler.format(2.0**16)
    status, errors = train('run', [2 * BATCH], wrapper=wrapper, action='skip')
    assert status == 0, errors
    assert (tmp_path / 'run' / 'non_finite' / 'iter_3.json').exists()
    last = tmp_path / 'run' / 'iter_6.pth'
    assert is_finite(last) and num_updates(last) == 5
    # The scale is as it was: it was not to blame.
    assert training(last)['optimizer']['loss_scaler']['scale'] == 2.0**16
