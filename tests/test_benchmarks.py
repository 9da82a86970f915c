"""The benchmark: fair, in turn, and not stopped by a peer that cannot go on."""

import json
import re
from pathlib import Path

import pytest
import torch

import swinv2_mm.models  # noqa: F401
from benchmarks.backbones import PEERS, CannotRun, Variant, build_peer, describe_attention
from benchmarks.cases import BATCHES, TASKS, parse_case
from benchmarks.machine import summarize_machine
from benchmarks.memory_use import bounded_process, measure_memory
from benchmarks.products import Product, ProductsAlone, _Products, matrix_products
from benchmarks.result_tables import growth_exponents
from benchmarks.steps import LIMIT, Setting, builders_of
from benchmarks.timing import Candidate, Outcome, ratios, time_interleaved
from swinv2_mm.core.cpu_kernels import cpu_rule
from swinv2_mm.errors import UserError

CPU = torch.device('cpu')
AUTO = [Variant('auto')]


def small_case(name='t-64-w8', **options):
    return parse_case(name, on_gpu=False, batch=1, depths=(1, 2, 1, 1), **options)


class TestCases:
    @pytest.mark.parametrize('name', [*BATCHES, *TASKS])
    def test_named(self, name):
        on_cpu, on_gpu = (parse_case(name, on_gpu=on_gpu) for on_gpu in (False, True))
        assert on_cpu.name == name and on_cpu.size_px == on_gpu.size_px
        assert on_cpu.batch <= on_gpu.batch

    def test_any_other(self):
        case = parse_case('b-96x128-w12', on_gpu=True)
        assert (case.arch.embed_dim, case.size_px, case.window, case.batch) == (
            128,
            (96, 128),
            12,
            1,
        )
        assert case.clipped_windows == ((12, 12), (12, 12), (6, 8), (3, 4))

    @pytest.mark.parametrize(
        ('name', 'options', 'words'),
        [
            ('t-256', {}, "unknown case 't-256'"),
            ('x-256-w8', {}, 'unknown case'),
            ('t-256-w0', {}, 'must be positive'),
            ('t-256-w8', {'batch': 0}, 'must be positive'),
            ('t-256-w8', {'depths': (1, 1)}, '--depths takes 4'),
        ],
        ids=str,
    )
    def test_mistakes(self, name, options, words):
        with pytest.raises(UserError, match=words):
            parse_case(name, on_gpu=False, **options)

    def test_variants(self):
        assert Variant.parse('sequential+cp') == Variant('sequential', with_cp=True)
        assert Variant.parse('eager,sdpa').attention == ('eager', 'sdpa')
        for text in ('fast', 'sdpa+no', 'sdpa,'):
            with pytest.raises(UserError, match='--attention'):
                Variant.parse(text)


def test_prints_what_the_figures_depend_on(monkeypatch):
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    line = summarize_machine(CPU)
    assert torch.backends.cpu.get_cpu_capability() in line and '(oneDNN: AVX2)' in line
    assert cpu_rule().name in line
    case = small_case()
    texts = [
        describe_attention(case, variant=variant, training=True, compiled=False)
        for variant in (Variant('auto'), Variant('sequential'))
    ]
    assert 'kept' in texts[0] and 'grouped' in texts[1]


@pytest.mark.parametrize('training', [False, True])
def test_products_are_those_of_the_paper(training):
    case = parse_case('t-256-w8', on_gpu=False, batch=2)
    counts = matrix_products(case, training=training)
    macs = sum(p.m * p.k * p.n * count for p, count in counts.items())
    side, total, network = 64, 0, 0
    for i, (c, depth, heads) in enumerate(
        zip(case.arch.dims, case.arch.depths, case.arch.num_heads, strict=True)
    ):
        total += depth * side**2 * (12 * c**2 + 2 * 64 * c)
        network += depth * 15**2 * 512 * (2 + heads)
        if i < 3:
            side //= 2
            total += side**2 * 4 * c * 2 * c
    # The backward pass has two products for each, but for the input of the bias network.
    skipped = 12 * 15**2 * 512 * 2
    assert macs == (3 * (2 * total + network) - skipped if training else 2 * total + network)


def test_products_alone_are_all_run(monkeypatch):
    # In the other way they are not seen as matrix products.
    monkeypatch.setattr('benchmarks.products.onednn_linear', None)
    counts = {Product(3, 4, 5, False): 2, Product(64, 32, 64, True): 20_000}
    run = ProductsAlone(counts, device=CPU, dtype=torch.float32)
    with _Products() as seen:
        run()
    assert seen.counts == counts
    assert run.flops == 2 * (2 * 3 * 4 * 5 + 20_000 * 64 * 32 * 64)


def numbered(log, name, result=None, fails_at=None):
    def step():
        log.append(name)
        if log.count(name) == fails_at:
            raise MemoryError
        return result

    return lambda: Candidate(step, step, model=None)


class TestTiming:
    def test_back_and_forth(self, monkeypatch):
        monkeypatch.setattr('benchmarks.timing._MIN_SAMPLE_S', 0.0)
        log = []
        builders = {name: numbered(log, name) for name in 'abc'}
        outcomes = time_interleaved(builders, device=CPU, rounds=3)
        assert ''.join(log).endswith('abccbaabc')
        assert [len(outcome.seconds) for outcome in outcomes] == [3, 3, 3]

    def test_one_drops_out(self, monkeypatch):
        monkeypatch.setattr('benchmarks.timing._MIN_SAMPLE_S', 0.0)
        log = []

        def broken():
            raise CannotRun('no such window')

        builders = {'a': numbered(log, 'a'), 'b': numbered(log, 'b', fails_at=4), 'c': broken}
        a, b, c = time_interleaved(builders, device=CPU, rounds=4)
        assert a.reason is None and len(a.seconds) == 4
        assert b.reason == 'out of memory' and not b.seconds and log.count('b') == 4
        assert c.reason == 'no such window'

    def test_ratios_are_pairwise(self):
        # The machine slows down three times from round to round: the ratio does not notice.
        base, other = Outcome('a', seconds=[1, 3, 9, 27]), Outcome('b', seconds=[2, 6, 18, 81])
        spread = ratios(other, base=base)
        assert (spread.low, spread.median, spread.high) == (2, 2, 2.25)

    def test_difference(self):
        results = {'a': [1.0, -4.0], 'b': [1.0, -3.0], 'c': [1.0]}
        builders = {n: numbered([], n, torch.tensor(r)) for n, r in results.items()}
        outcomes = time_interleaved(builders, device=CPU, rounds=0)
        assert [outcome.difference for outcome in outcomes] == [0, 0.25, None]


def test_memory_of_known_tensors():
    weight = torch.nn.Linear(1, 1000, bias=False)
    x = torch.ones(500, 1)

    def forward():
        return weight(x).exp()

    def step():
        forward().backward(torch.ones(500, 1000))

    memory = measure_memory(
        step, forward=forward, model=weight, device=CPU, held=0, with_tensors=True
    )
    matrix = 500 * 1000 * 4
    # Kept: the result of exp. At a time: it, the gradient of it, that of its argument.
    assert memory.saved == pytest.approx(matrix, rel=0.01)
    assert memory.tensors == pytest.approx(3 * matrix, rel=0.01)


@pytest.mark.skipif(not Path('/proc/meminfo').exists(), reason='Linux only')
def test_a_cpu_refuses_what_it_does_not_have():
    text = Path('/proc/meminfo').read_text()
    available = int(re.search(r'MemAvailable:\s+(\d+)', text)[1]) * 1024

    def too_much():
        # Never written to, so that nothing is really taken.
        torch.empty(int(available * 0.95), dtype=torch.uint8)
        return Candidate(lambda: None, lambda: None, model=None)

    with bounded_process(CPU):
        (outcome,) = time_interleaved({'a': too_much}, device=CPU, rounds=0)
    assert outcome.reason == 'out of memory'


def test_all_compute_the_same():
    setting = Setting('training', 'float32', False, CPU)
    variants = [Variant('eager'), Variant('sequential', with_cp=True)]
    builders = builders_of(small_case(), setting=setting, variants=variants, peers=tuple(PEERS))
    outcomes = time_interleaved(builders, device=CPU, rounds=1)
    assert [o.name for o in outcomes] == ['ours eager', 'ours sequential+cp', *PEERS, LIMIT]
    for outcome in outcomes:
        assert outcome.reason is None and len(outcome.seconds) == 1
        if outcome.name != LIMIT:
            # Measured: 2e-6.
            assert outcome.difference < 1e-4
            assert outcome.memory.tensors > 0
    saved = {o.name: o.memory.saved for o in outcomes if o.memory}
    assert saved['ours sequential+cp'] < 0.5 * saved['ours eager']


def test_half_precision():
    setting = Setting('training', 'bf16', False, CPU)
    builders = builders_of(small_case(), setting=setting, variants=AUTO, peers=('timm',))
    outcomes = time_interleaved(builders, device=CPU, rounds=0)
    assert all(o.reason is None for o in outcomes) and 1e-4 < outcomes[1].difference < 0.2


def test_whole_models_compute_the_same():
    case = parse_case('upernet', on_gpu=False, batch=2, depths=(1, 2, 1, 1), size_px=(64, 64))
    setting = Setting('training', 'float32', False, CPU)
    builders = builders_of(case, setting=setting, variants=AUTO, peers=tuple(PEERS))
    outcomes = time_interleaved(builders, device=CPU, rounds=0)
    assert [o.name for o in outcomes] == ['ours auto', 'mmpretrain']
    assert all(o.reason is None for o in outcomes), outcomes
    assert outcomes[1].difference < 1e-4


class TestWhatPeersCannot:
    def test_extra_norms(self):
        case = parse_case('g-64-w8', on_gpu=False)
        with pytest.raises(CannotRun, match='extra norms'):
            build_peer('timm', case)

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(__import__('sys').modules, 'timm.models.swin_transformer_v2', None)
        with pytest.raises(CannotRun, match='not installed'):
            build_peer('timm', small_case())

    def test_oblong_windows(self):
        with pytest.raises(CannotRun, match='square'):
            build_peer('mmpretrain', small_case('t-64x128-w8'))


def test_growth():
    def result(side, batch, seconds):
        return dict(
            case=f't-{side}-w16', size_px=(side, side), batch=batch, mode='forward',
            dtype='float32', compiled=False,
            rows=[dict(name='ours', seconds=dict(median=seconds)), dict(name='b', seconds=None)],
        )  # fmt: skip

    exponents = growth_exponents([result(512, 4, 4.0), result(1024, 1, 4.0), result(256, 1, 0.25)])
    assert exponents == {'t-w16, forward, float32, eager, ours': pytest.approx(1.0)}


class TestTool:
    def test_writes_everything(self, tool, tmp_path):
        out = tmp_path / 'folder' / 'out.json'
        status, errors = tool(
            '../benchmarks/run', '--cases', 't-32-w4', '--depths', 1, 1, 1, 1, '--peers', 'timm',
            '--mode', 'forward', '--rounds', 2, '--device', 'cpu', '--json', out,
        )  # fmt: skip
        assert status == 0, errors
        assert 't-32-w4: forward, float32, eager, 1 x 32 x 32 px' in tool.printed
        report = json.loads(out.read_text())
        assert '--cases t-32-w4' in report['command']
        assert report['machine']['processor'] and report['versions']['timm']
        ours, timm, limit = report['results'][0]['rows']
        assert ours['ratio']['median'] == 1 and len(timm['rounds']) == 2
        assert limit['name'] == LIMIT and limit['share_of_limit'] == 1

    @pytest.mark.parametrize(
        ('arguments', 'words'),
        [
            (['--cases', 'tiny'], "unknown case 'tiny'"),
            (['--peers', 'tim'], "--peers: unknown 'tim'"),
            (['--attention', 'fast'], "--attention 'fast'"),
            (['--device', 'tpu'], '--device is cpu or cuda'),
            (['--rounds', '-1'], '--rounds'),
        ],
    )
    def test_mistakes(self, arguments, words, tool):
        cases = [] if '--cases' in arguments else ['--cases', 't-32-w4']
        status, errors = tool('../benchmarks/run', *cases, '--mode', 'forward', *arguments)
        assert status == 1 and words in errors and 'Traceback' not in errors

    @pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
    def test_no_gpu(self, tool):
        status, errors = tool('../benchmarks/run', '--device', 'cuda')
        assert status == 1 and 'torch sees no GPU' in errors
