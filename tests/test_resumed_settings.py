"""A training that is resumed with other settings: which hold is reported, and is what is used."""

import json
import math
import shutil

import pytest
import torch
from test_tools import CLASSIFIER, TINY

import swinv2_mm.cli
from swinv2_mm.config.text import parse_config_text
from swinv2_mm.errors import UserError

BASE_LR, LR = 1e-3, 5e-3
COMMON = [*TINY, 'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0']
COMMON += ['train_dataloader.persistent_workers=False', 'default_hooks.logger.interval=1']
COMMON += ['default_hooks.checkpoint.interval=4', 'val_dataloader=None', 'val_cfg=None']
COMMON += ['val_evaluator=None', f'optim_wrapper.optimizer.lr={BASE_LR}']
COMMON += ['param_scheduler.0.end=2', 'param_scheduler.1.begin=2']
EMA = "custom_hooks=[dict(type='EMAHook',momentum=0.5)]"


def length(num_iters):
    return [
        f'train_cfg.max_iters={num_iters}',
        f'param_scheduler.1.end={num_iters}',
        f'param_scheduler.1.T_max={num_iters - 1}',
    ]


def cosine(base, num_iters, iteration):
    """The rate of an iteration, counted from 0, after a warm-up of two."""
    eta = 0.01 * base
    step = min(iteration, num_iters - 1) - 2
    return eta + (base - eta) * (1 + math.cos(math.pi * step / (num_iters - 1))) / 2


@pytest.fixture(scope='module')
def trained(data_root, tmp_path_factory):
    """Work dirs of trainings of 4 iterations, by their options."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWINV2_DATA', str(data_root))

        def get(*options):
            if options not in found:
                found[options] = tmp_path_factory.mktemp('run')
                options_ = [*COMMON, *length(4), *options]
                swinv2_mm.cli.train(CLASSIFIER, work_dir=found[options], options=options_)
            return found[options]

        yield get


@pytest.fixture
def resume(trained, tmp_path):
    """Resume to 8 iterations; returns the Runner, with ``log`` and the ``rates`` by iteration."""

    def run(*options, before=(), resume_with=(), num_iters=8):
        work_dir = tmp_path / 'resumed'
        shutil.copytree(trained(*before), work_dir)
        for folder in work_dir.glob('2*'):
            shutil.rmtree(folder)
        runner = swinv2_mm.cli.train(
            CLASSIFIER, work_dir=work_dir, resume='auto', resume_with=resume_with,
            options=[*COMMON, *length(num_iters), *options],
        )  # fmt: skip
        runner.log = '\n'.join(path.read_text() for path in work_dir.glob('2*/*.log'))
        files = work_dir.glob('2*/vis_data/scalars.json')
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        runner.rates = {record['step'] - 1: record['lr'] for record in records if 'lr' in record}
        return runner

    return run


def warnings_of(log, *words):
    return [
        line for line in log.splitlines() if 'WARNING' in line and all(w in line for w in words)
    ]


@pytest.mark.parametrize(
    ('resume_with', 'base', 'num_iters'),
    [
        ((), BASE_LR, 4),
        (('lr',), LR, 4),
        (('schedule',), BASE_LR, 8),
        (('lr', 'schedule'), LR, 8),
    ],
    ids=str,
)
def test_rate_and_schedule(resume_with, base, num_iters, resume):
    runner = resume(f'optim_wrapper.optimizer.lr={LR}', resume_with=resume_with)
    assert list(runner.rates) == [4, 5, 6, 7]
    for iteration, rate in runner.rates.items():
        assert rate == pytest.approx(cosine(base, num_iters, iteration), rel=1e-6)
    for key, name in (('optimizer.lr', 'lr'), ('param_scheduler.1.T_max', 'schedule')):
        (line,) = warnings_of(runner.log, key)
        assert f"{'config' if name in resume_with else 'checkpoint'}'s holds" in line
    assert "config's holds" in warnings_of(runner.log, 'train_cfg.max_iters was 4 and is 8')[0]
    assert f'learning rates {runner.rates[4]:.3g}' in runner.log


def test_another_number_of_schedulers(resume):
    """The checkpoint's one cosine goes on, not a warm-up that MMEngine would begin."""
    runner = resume("param_scheduler=[dict(type='ConstantLR',factor=0.5,by_epoch=False,end=99)]")
    for iteration, rate in runner.rates.items():
        assert rate == pytest.approx(cosine(BASE_LR, 4, iteration), rel=1e-6)
    assert warnings_of(runner.log, 'param_scheduler.0.type', "checkpoint's holds")


@pytest.mark.parametrize('is_taken', [False, True])
@pytest.mark.parametrize('decay', [0.0, 0.2])
def test_weight_decay_and_seed(decay, is_taken, resume):
    names = ('weight_decay', 'seed', 'optimizer') if is_taken else ()
    runner = resume(
        f'optim_wrapper.optimizer.weight_decay={decay}', 'randomness.seed=9',
        'optim_wrapper.optimizer.betas=(0.8,0.9)', resume_with=names,
    )  # fmt: skip
    groups = runner.optim_wrapper.optimizer.param_groups
    assert max(group['weight_decay'] for group in groups) == (decay if is_taken else 0.05)
    assert tuple(groups[0]['betas']) == ((0.8, 0.9) if is_taken else (0.9, 0.999))
    assert runner.seed == (9 if is_taken else 0)
    which = 'config' if is_taken else 'checkpoint'
    for key in ('weight_decay', 'randomness.seed', 'optimizer.betas'):
        assert warnings_of(runner.log, key, f"the {which}'s holds")


def test_settings_that_the_config_decides(resume):
    runner = resume(
        'optim_wrapper.clip_grad.max_norm=0.5', 'train_dataloader.batch_size=2', 'accumulate=2',
        'precision=bf16', EMA,
    )  # fmt: skip
    wrapper = runner.optim_wrapper
    assert type(wrapper).__name__ == 'Bfloat16OptimWrapper'
    assert wrapper.clip_grad_kwargs['max_norm'] == 0.5
    assert runner.train_dataloader.batch_size == 2
    for key in ('clip_grad.max_norm', 'batch_size', 'accumulate', 'precision', 'EMAHook.momentum'):
        assert warnings_of(runner.log, key, "the config's holds")


def test_weights_of_an_average_that_ends(trained, resume):
    """Without EMA the trained weights go on; they lie under the average in the file."""
    saved = torch.load(trained(EMA) / 'iter_4.pth', weights_only=False)
    name = 'head.fc.weight'
    trained_weights = saved['ema_state_dict'][f'module.{name}']
    assert not torch.equal(saved['state_dict'][name], trained_weights)
    runner = resume(before=(EMA,), num_iters=4)
    assert torch.equal(runner.model.state_dict()[name], trained_weights)
    assert warnings_of(runner.log, 'average') and warnings_of(runner.log, 'nothing is left')


def test_same_settings_say_nothing(resume):
    runner = resume(num_iters=4)
    assert not warnings_of(runner.log, 'another setting')


def test_another_optimizer_is_refused(resume):
    with pytest.raises(UserError, match='AdamW'):
        resume('optim_wrapper.optimizer.type=Adam')


def test_resume_with_is_validated(use_data, tmp_path):
    with pytest.raises(UserError, match='--resume'):
        swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path, resume_with=['lr'], options=COMMON)
    with pytest.raises(UserError, match='weight_decay'):
        options = [*COMMON, *length(4), '+resume_with=clip']
        swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path, resume='auto', options=options)


def test_config_text_is_not_run(tmp_path):
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')"
    text = f'a = dict(b=[1, dict(c=-2.5)], d=(3, None))\ne = {evil}\nimport os\n{evil}\nf = a.b\n'
    found = parse_config_text(text)
    assert found['a'] == {'b': [1, {'c': -2.5}], 'd': (3, None)} and 'e' not in found
    assert not list(tmp_path.iterdir())
    for wrong in ('a = (' * 5000, '[' * 100_000, 'a = ' + '-' * 50_000 + '1', None, 3, 'a ='):
        assert parse_config_text(wrong) == {}


def test_keeps_the_cpu_kernels_of_the_checkpoint(trained, resume, monkeypatch):
    """On another kind of processor too: here the checkpoint is given a row that is not our own."""
    from swinv2_mm.core import cpu_kernels

    own = cpu_kernels.cpu_rule().name
    monkeypatch.setattr(cpu_kernels, '_resumed', None)
    monkeypatch.delenv('SWINV2_CPU_KERNELS', raising=False)
    other = next(rule.name for rule in cpu_kernels.CPU_RULES if rule.name != own)
    path = trained() / 'iter_4.pth'
    checkpoint = torch.load(path, weights_only=False)
    assert checkpoint['meta']['cpu_kernels'] == own
    changed = {**checkpoint, 'meta': {**checkpoint['meta'], 'cpu_kernels': other}}
    try:
        torch.save(changed, path)
        runner = resume()
        assert cpu_kernels.cpu_rule().name == other
        assert len(warnings_of(runner.log, f"CPU kernels '{other}'")) == 1
    finally:
        torch.save(checkpoint, path)
        monkeypatch.undo()
        cpu_kernels.cpu_rule.cache_clear()
