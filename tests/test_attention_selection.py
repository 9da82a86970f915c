"""``attention='auto'`` on CUDA: a choice by checks and timings, with fakes for what needs a GPU."""

import json
import logging
import math
import threading

import pytest
import torch

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import backends, failures, proof
from swinv2_mm.core.attention.backends import BACKENDS, resolve_backend
from swinv2_mm.core.attention.eager import eager
from swinv2_mm.core.attention.selection import ChoiceFile, Selector, Trial, compare
from swinv2_mm.core.window_partition import window_grid

LIMITS = (1e-3, 1e-3)


class Clock:
    """Takes the seconds that a fake candidate returns."""

    def __init__(self):
        self.num_runs = 0

    def __call__(self, run):
        self.num_runs += 1
        return run()


def trial(seconds=1.0, errors=(1e-4, 1e-4), fails_at=None):
    def act(stage, result):
        if stage == fails_at:
            raise RuntimeError('ptxas: no luck\nsecond line')
        return result

    return Trial(lambda: act('check', errors), lambda: act('run', seconds))


def select(selector, key='key', names=('a', 'b'), **trials):
    trials = trials or {'a': trial(2.0), 'b': trial(1.0)}
    prepared = []

    def prepare():
        prepared.append(key)
        return trials, LIMITS

    chosen = selector.choose(key, names=names, fallback='safe', prepare=prepare)
    return chosen, len(prepared)


def test_the_fastest_of_what_is_right(tmp_path):
    clock = Clock()
    trials = {
        'slow': trial(3.0),
        'fast': trial(1.0),
        'wrong': trial(0.1, errors=(1e-4, 2e-3)),
        'nan': trial(0.1, errors=(math.nan, 0.0)),
        'infinite': trial(0.1, errors=(0.0, math.inf)),
        'does not compile': trial(fails_at='check'),
        'dies when timed': trial(fails_at='run'),
    }
    choice = compare(trials, limits=LIMITS, clock=clock)
    assert choice.name == 'fast'
    assert choice.seconds == {'slow': 3.0, 'fast': 1.0}
    # Three runs of each that is right.
    assert clock.num_runs == 6
    assert set(choice.discarded) == set(trials) - {'slow', 'fast'}
    assert '2.0e-03' in choice.discarded['wrong'] and 'finite' in choice.discarded['nan']
    assert choice.discarded['does not compile'] == 'RuntimeError: ptxas: no luck'


def test_a_drop_in_one_run_does_not_decide():
    times = iter([9.0, 1.0, 9.0, 2.0, 2.0, 2.0])
    found = compare({'a': trial(), 'b': trial()}, limits=LIMITS, clock=lambda run: next(times))
    assert found.name == 'a' and found.seconds['a'] == 1.0


def test_nothing_is_right():
    selector = Selector(ChoiceFile(None), clock=Clock())
    wrong = {'a': trial(errors=(1.0, 1.0)), 'b': trial(fails_at='check')}
    assert select(selector, **wrong) == ('safe', 1)
    # Not tried again.
    assert select(selector, **wrong) == ('safe', 0)

    def prepare():
        raise torch.OutOfMemoryError('no memory')

    assert selector.choose('other', names=('a',), fallback='safe', prepare=prepare) == 'safe'


def test_a_choice_is_measured_once_and_kept(tmp_path, caplog):
    caplog.set_level(logging.INFO, 'swinv2_mm')
    path = tmp_path / 'cache' / 'choices.json'
    first = Selector(ChoiceFile(path), clock=Clock())
    assert select(first) == ('b', 1)
    assert select(first) == ('b', 0)
    assert select(first, key='other', a=trial(1.0), b=trial(2.0)) == ('a', 1)
    assert [line.partition(':')[0] for line in caplog.messages] == [
        'attention on key',
        'attention on other',
    ]
    assert 'b (b 1e+03 ms, a 2e+03 ms)' in caplog.messages[0]
    # Another process.
    second = Selector(ChoiceFile(path), clock=Clock())
    assert select(second) == ('b', 0)
    assert select(second, key='other') == ('a', 0)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    # One that does not know the choice, such as an older version, measures its own.
    third = Selector(ChoiceFile(path), clock=Clock())
    assert select(third, names=('a', 'c'), a=trial(1.0), c=trial(2.0)) == ('a', 1)


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'{"format": 1, "choices": {"key": {"na',
        b'\xff\xfe\x00',
        b'[]',
        b'{"format": 99, "choices": {"key": {"name": "a"}}}',
        b'{"format": 1, "choices": ["key"]}',
        b'{"format": 1, "choices": {"key": "a"}}',
        b'{"format": 1, "choices": {"key": {"name": 7}}}',
        b'[' * 100_000,
    ],
    ids=lambda content: str(content[:50]),
)
def test_a_broken_file_is_measured_anew_and_replaced(tmp_path, content):
    path = tmp_path / 'choices.json'
    path.write_bytes(content)
    assert select(Selector(ChoiceFile(path), clock=Clock())) == ('b', 1)
    assert json.loads(path.read_text())['choices']['key']['name'] == 'b'


def test_a_file_that_cannot_be_written_is_none(tmp_path):
    blocked = tmp_path / 'file'
    blocked.write_text('')
    selector = Selector(ChoiceFile(blocked / 'choices.json'), clock=Clock())
    assert select(selector) == ('b', 1)
    assert select(selector) == ('b', 0)


class Job:
    """Two processes as two threads."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def process(self, rank, patience=5.0):
        job = self

        class Process:
            def __init__(self):
                self.rank = rank

            def publish(self, key, value):
                with job.changed:
                    job.values[key] = value
                    job.changed.notify_all()

            def find(self, key, *, seconds):
                with job.changed:
                    job.changed.wait_for(lambda: key in job.values, min(seconds, patience))
                    return job.values.get(key)

        return Process()


def test_rank_0_decides_for_all(tmp_path):
    job, found = Job(), {}

    def work(rank, **trials):
        # Folders of two machines.
        file = ChoiceFile(tmp_path / f'{rank}.json')
        selector = Selector(file, clock=Clock(), peers=lambda: job.process(rank))
        found[rank] = select(selector, **trials)

    threads = [
        threading.Thread(target=work, args=(1,), kwargs=dict(a=trial(1.0), b=trial(2.0))),
        threading.Thread(target=work, args=(0,), kwargs=dict(a=trial(2.0), b=trial(1.0))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The other would have chosen a; it measures nothing.
    assert found == {0: ('b', 1), 1: ('b', 0)}


def test_what_rank_0_does_not_meet_falls_back():
    job = Job()
    other = Selector(ChoiceFile(None), clock=Clock(), peers=lambda: job.process(1, patience=0.01))
    assert select(other) == ('safe', 0)
    # The answer came too late: within a process a choice never changes.
    job.process(0).publish('key begun', '')
    job.process(0).publish('key', 'b')
    assert select(other) == ('safe', 0)
    # Rank 0 found nothing that is right.
    job.process(0).publish('none begun', '')
    job.process(0).publish('none', '')
    assert select(other, key='none') == ('safe', 0)


# --- attention ----------------------------------------------------------------------------------

GRIDS = [
    window_grid((37, 50), window=(4, 4), shifted=True, tiling='fixed'),
    window_grid((9, 13), window=(8, 4), shifted=True, tiling='fixed'),
    window_grid((8, 8), window=(8, 8), shifted=True, tiling='fixed'),
]


def operands(grid, *, heads=2, head_dim=8, images=3, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    offsets = (2 * grid.window[0] - 1) * (2 * grid.window[1] - 1)
    qkv = torch.randn(images, *grid.size, 3 * heads * head_dim, generator=generator).to(dtype)
    scale = torch.linspace(4.0, 1.0, heads).reshape(-1, 1, 1)
    return [qkv, scale, 8 + torch.randn(heads, offsets, generator=generator)]


@pytest.mark.parametrize('grid', GRIDS, ids=lambda grid: f'{grid.size}')
def test_a_sample_has_windows_of_every_kind(grid):
    part, part_grid = proof.sample_of(operands(grid)[0], grid)
    assert math.prod(part_grid.num_windows) * len(part) <= max(64, math.prod(grid.num_windows))
    assert (part_grid.window, part_grid.shift) == (grid.window, grid.shift)
    assert part.shape[1:3] == part_grid.size
    out = eager(part.float(), part_grid, *operands(grid)[1:])
    assert out.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize('needs_grad', [False, True])
def test_limits_pass_what_is_right_and_stop_what_is_not(dtype, needs_grad):
    def off_by(factor):
        return lambda qkv, grid, scale, bias: eager(qkv * (1 + factor), grid, scale, bias)

    def without_bias(qkv, grid, scale, bias):
        return eager(qkv, grid, scale, 0 * bias)

    def no_seam(qkv, grid, scale, bias):
        whole = window_grid(grid.size, window=grid.window, shifted=False, tiling='fixed')
        return eager(qkv, whole, scale, bias)

    candidates = {
        'eager': eager, 'sdpa': BACKENDS['sdpa'], 'hybrid': BACKENDS['hybrid'],
        'rounded': proof.rounded,
        'off': off_by(0.2), 'no bias': without_bias, 'no seam': no_seam,
    }  # fmt: skip
    for grid in GRIDS[:2]:
        trials, limits = proof.prepare_trials(
            candidates, operands(grid, dtype=dtype), grid, needs_grad=needs_grad
        )
        assert len(limits) == (4 if needs_grad else 1)
        choice = compare(trials, limits=limits, clock=lambda run: run() and 1.0)
        assert set(choice.seconds) == {'eager', 'sdpa', 'hybrid', 'rounded'}, choice


@pytest.fixture
def on_cuda(monkeypatch):
    """Take the CPU for a GPU: what is run and known, without what the choice depends on."""
    log = []
    selector = Selector(ChoiceFile(None), clock=lambda run: log.append('timed') or 1.0)
    monkeypatch.setattr(proof, 'selector', lambda: selector)

    def chosen(grid=GRIDS[1], *, needs_grad=False, inputs=None):
        return proof.choose(
            lambda: {'eager': eager, 'sdpa': BACKENDS['sdpa']},
            operands(grid) if inputs is None else inputs,
            grid,
            fallback='fixed',
            needs_grad=needs_grad,
        )

    chosen.log = log
    return chosen


def test_a_kernel_that_fails_is_discarded_not_replaced(monkeypatch):
    def fail(*operands):
        raise RuntimeError('no kernel image')

    monkeypatch.setattr(backends, 'around_sdpa', fail)
    monkeypatch.setattr(failures, '_failed', set())
    candidates = {'hybrid': BACKENDS['hybrid'], 'sdpa': BACKENDS['sdpa']}
    trials, limits = proof.prepare_trials(candidates, operands(GRIDS[1]), GRIDS[1], needs_grad=True)
    choice = compare(trials, limits=limits, clock=lambda run: run() and 1.0)
    assert choice.discarded == {'hybrid': 'RuntimeError: no kernel image'}
    # It is not named as failed: another size may work.
    assert not failures._failed


def test_measures_once_per_key(on_cuda):
    assert on_cuda() == 'eager'
    assert len(on_cuda.log) == 6
    assert on_cuda() == 'eager'
    assert len(on_cuda.log) == 6
    assert on_cuda(needs_grad=True) == 'eager'
    assert len(on_cuda.log) == 12
    # Windows of 32 and of 64 tokens.
    assert on_cuda(GRIDS[2]) == 'eager'
    assert len(on_cuda.log) == 18


def test_never_in_a_graph_nor_in_backward(on_cuda, monkeypatch):
    in_backward = []

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            in_backward.append(on_cuda())
            return grad

    Probe.apply(torch.ones(1, requires_grad=True)).backward()
    assert in_backward == ['fixed']
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, 'is_compiling', lambda: True)
        assert on_cuda() == 'fixed'
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert on_cuda() == 'fixed'
    torch.use_deterministic_algorithms(True)
    try:
        assert on_cuda() == 'fixed'
    finally:
        torch.use_deterministic_algorithms(False)
    assert on_cuda(inputs=operands(GRIDS[1], images=0)) == 'fixed'
    # Nothing of it is remembered.
    assert on_cuda.log == [] and on_cuda() == 'eager'


def test_never_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)

    class OnCuda:
        device = torch.device('cuda')

    assert not proof._may_measure(OnCuda())


def test_in_an_activation_checkpoint(on_cuda):
    """What a trial saves for its backward is not what the checkpoint computes again."""
    from torch.utils.checkpoint import checkpoint

    calls = []

    def block(x):
        calls.append(on_cuda(needs_grad=True))
        return x.sin().square()

    x = torch.ones(3, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()
    assert calls == ['eager', 'eager']
    torch.testing.assert_close(x.grad, torch.sin(2 * torch.ones(3)))


def test_the_variable_overrides(monkeypatch):
    monkeypatch.delenv('SWINV2_ATTENTION', raising=False)
    assert resolve_backend('auto') is backends.auto
    monkeypatch.setenv('SWINV2_ATTENTION', 'eager')
    assert resolve_backend('auto') is BACKENDS['eager']
    assert resolve_backend('sdpa') is BACKENDS['sdpa']
    model = SwinTransformerV2({'embed_dim': 8, 'depths': (1,), 'num_heads': (1,)}, out_indices=(0,))
    assert 'eager (eager on a CPU)' in model.describe_attention()
    monkeypatch.setenv('SWINV2_ATTENTION', 'best')
    with pytest.raises(ValueError, match='SWINV2_ATTENTION'):
        resolve_backend('auto')


def test_auto_on_a_cpu_is_sdpa():
    grid, inputs = GRIDS[1], operands(GRIDS[1], dtype=torch.float32)
    with torch.no_grad():
        expected = BACKENDS['sdpa'](inputs[0], grid, *inputs[1:])
        assert torch.equal(backends.auto(inputs[0], grid, *inputs[1:]), expected)


def test_auto_runs_what_was_chosen(monkeypatch):
    """With fake tensors of a GPU, for which nothing is measured, and with a choice."""
    seen = []
    monkeypatch.setitem(backends.BACKENDS, 'chosen', lambda qkv, *_: seen.append(qkv.device.type))
    with torch._subclasses.fake_tensor.FakeTensorMode():
        grid = GRIDS[1]
        inputs = [x.to('cuda') for x in operands(grid)]
        out = backends.auto(inputs[0], grid, *inputs[1:])
        assert (out.device.type, out.dtype) == ('cuda', torch.bfloat16)
    # As on a GPU, with tensors that hold values.
    monkeypatch.setattr(backends, '_chooses', lambda qkv: True)
    monkeypatch.setattr(proof, 'choose', lambda *args, **kwargs: 'chosen')
    backends.auto((real := operands(grid))[0], grid, *real[1:])
    assert seen == ['cpu']


@pytest.mark.slow
def test_two_processes_choose_alike(tmp_path):
    """Over the store of torch.distributed."""
    import torch.multiprocessing as mp

    mp.spawn(_process, args=(str(tmp_path),), nprocs=2)
    found = [json.loads((tmp_path / f'{rank}.txt').read_text()) for rank in range(2)]
    assert found == [['b', 1], ['b', 0]]


def _process(rank, folder):
    import datetime
    from pathlib import Path

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    selector = Selector(ChoiceFile(None), clock=Clock(), peers=proof._peers)
    mine = [dict(a=trial(2.0), b=trial(1.0)), dict(a=trial(1.0), b=trial(2.0))][rank]
    found = select(selector, **mine)
    # A key that the other does not meet.
    assert proof._Job().find('nobody', seconds=0.1) is None
    (Path(folder) / f'{rank}.txt').write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
