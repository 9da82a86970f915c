"""Which backend runs, what it says when it cannot, and what each promises beyond its numbers."""

import gc
import logging
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import backends, failures, flex, grouped
from swinv2_mm.core.attention.backends import BACKENDS, resolve_backend, sequential
from swinv2_mm.core.attention.eager import eager
from swinv2_mm.core.attention.triton import triton_gap
from swinv2_mm.core.cpu_kernels import CPU_RULES
from swinv2_mm.core.tensor_cache import CONSTANTS
from swinv2_mm.core.window_partition import window_grid

ROOT = Path(__file__).parents[1]
GRIDS = [
    window_grid((9, 13), window=(8, 4), shifted=True, tiling='fixed'),
    window_grid((8, 8), window=(4, 4), shifted=False, tiling='fixed'),
    window_grid((5, 19), window=(8, 8), shifted=True, tiling='balanced'),
]


def operands(grid, *, heads=2, head_dim=4, images=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    offsets = (2 * grid.window[0] - 1) * (2 * grid.window[1] - 1)
    shapes = [(images, *grid.size, 3 * heads * head_dim), (heads, 1, 1), (heads, offsets)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def gradients(backend, grid, inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = backend(inputs[0], grid, *inputs[1:])
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


def saved_bytes(backend, grid, inputs) -> int:
    """Bytes that autograd keeps for backward.

    Views of one storage count once; masks, which exist once per process, not at all.
    """
    storages = {}

    def pack(x):
        if not any(x is mask for mask in CONSTANTS._entries.values()):
            storages[x.untyped_storage().data_ptr()] = (x.untyped_storage().nbytes(), x)
        return x

    inputs = [x.clone().requires_grad_() for x in inputs]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        backend(inputs[0], grid, *inputs[1:])
    return sum(size for size, _ in storages.values())


@pytest.fixture
def fresh_log(caplog):
    failures.log_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.mark.parametrize('name', ['flex', 'triton'])
def test_falls_back_with_one_line(name, fresh_log, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    inputs = operands(GRIDS[0])
    for _ in range(3):
        actual = gradients(BACKENDS[name], GRIDS[0], inputs)
    for a, b in zip(actual, gradients(BACKENDS['sdpa'], GRIDS[0], inputs), strict=True):
        assert torch.equal(a, b)
    (message,) = fresh_log.messages
    assert f"attention '{name}' falls back to 'sdpa': " in message


def test_auto_is_what_has_been_tried_everywhere():
    """The fused kernels have not: when they have run on a GPU, this changes with a measurement."""
    inputs = operands(GRIDS[0])
    out = resolve_backend('auto')(inputs[0], GRIDS[0], *inputs[1:])
    assert torch.equal(out, BACKENDS['sdpa'](inputs[0], GRIDS[0], *inputs[1:]))


@pytest.mark.parametrize(
    ('size', 'head_dim', 'reason'), [((65, 4), 32, 'side'), ((8, 8), 129, 'channels')]
)
def test_triton_names_its_limits(size, head_dim, reason):
    assert reason in triton_gap(torch.zeros(1), window=size, head_dim=head_dim)


# --- flex ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('grid', GRIDS, ids=lambda grid: f'{grid.window}')
def test_flex_forward(grid, monkeypatch, fresh_log):
    calls = []
    original = flex.flex_attention
    monkeypatch.setattr(
        flex,
        'flex_attention',
        lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs),
    )
    inputs = operands(grid)
    with torch.no_grad():
        actual = BACKENDS['flex'](inputs[0], grid, *inputs[1:])
    assert calls == [1]
    assert not fresh_log.messages
    # Measured: 9e-16.
    torch.testing.assert_close(actual, eager(inputs[0], grid, *inputs[1:]), rtol=0, atol=1e-12)


def test_flex_shares_graphs_among_sizes(monkeypatch):
    """Of windows, maps, shifts, batches and heads; a graph each would pass torch's limit of 8."""
    torch.compiler.reset()
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend=backend))
    monkeypatch.setattr(flex, 'flex_attention', flex._compiled.__wrapped__())
    sizes = ((16, 24), (32, 16), (40, 24), (24, 24), (17, 23), (20, 33))
    for number, (size, side, shifted) in enumerate(product(sizes, (4, 8), (False, True))):
        grid = window_grid(size, window=(side, side), shifted=shifted, tiling='fixed')
        inputs = operands(grid, heads=2 + number % 3, images=2 + number % 2)
        with torch.no_grad():
            actual = flex.looked_up(inputs[0], grid, *inputs[1:])
        torch.testing.assert_close(actual, eager(inputs[0], grid, *inputs[1:]), rtol=0, atol=1e-12)
    assert len(graphs) <= 4


# --- sequential ---------------------------------------------------------------------------------


@pytest.mark.parametrize('max_logits', [1, 2**11, 2**24])
@pytest.mark.parametrize('grid', GRIDS, ids=lambda grid: f'{grid.window}')
def test_sequential_in_groups_of_any_size(grid, max_logits, monkeypatch):
    monkeypatch.setattr(grouped, '_MAX_LOGITS_CPU', max_logits)
    inputs = operands(grid)
    expected = gradients(eager, grid, inputs)
    for a, b in zip(gradients(sequential, grid, inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        out = sequential(inputs[0], grid, *inputs[1:])
    torch.testing.assert_close(out, expected[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(('name', 'side'), [('sequential', 16), ('sdpa', 24)])
def test_keeps_the_map_and_no_logits(name, side):
    grid = window_grid((48, 48), window=(side, side), shifted=True, tiling='fixed')
    inputs = operands(grid, heads=4, images=1, dtype=torch.float32)
    shifted_map = inputs[0].nbytes
    kept, whole = saved_bytes(BACKENDS[name], grid, inputs), saved_bytes(eager, grid, inputs)
    print(f'kept for backward: {name} {kept}, eager {whole}, the map {shifted_map} bytes')
    assert kept < 1.2 * shifted_map
    assert kept < 0.05 * whole


def test_no_more_logits_than_one_group_exist(monkeypatch):
    """In either pass, of everything that is made."""
    monkeypatch.setattr(grouped, '_MAX_LOGITS_CPU', 1)
    grid = window_grid((32, 32), window=(16, 16), shifted=True, tiling='fixed')
    inputs = operands(grid, head_dim=1)
    sizes = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in tree_leaves(out):
                # Views are what they view.
                if isinstance(x, torch.Tensor) and not func.is_view:
                    sizes.append((x.numel(), func))
            return out

    with Record():
        gradients(sequential, grid, inputs)
    # Two heads of one window, out of four in each of two images.
    largest = max(sizes, key=lambda pair: pair[0])
    assert largest[0] == 2 * 256**2, largest


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['auto', 'eager', 'hybrid', 'triton', 'sequential'])
def test_compiles_without_a_graph_break(name):
    """The aot_eager backend traces the gradient too, without a C++ compiler."""
    torch._dynamo.reset()
    compiled = torch.compile(resolve_backend(name), fullgraph=True, backend='aot_eager')
    inputs = operands(GRIDS[0])
    expected = gradients(eager, GRIDS[0], inputs)
    for a, b in zip(gradients(compiled, GRIDS[0], inputs), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('name', ['eager', 'sdpa', 'sequential', 'hybrid'])
def test_leaves_no_tensor_to_the_garbage_collector(name):
    """A reference cycle would hold the memory of a step until some later one."""
    inputs = operands(GRIDS[0])
    gradients(BACKENDS[name], GRIDS[0], inputs)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gradients(BACKENDS[name], GRIDS[0], inputs)
        gc.collect()
        # The compiler of torch 2.6 lets go of its fake tensors late.
        assert not [x for x in gc.garbage if type(x) is torch.Tensor]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_imports_without_triton():
    code = """
import sys
sys.modules['triton'] = None
import torch
from swinv2_mm.core.attention.triton import launch
launch._is_installed = lambda: False
gap = launch.triton_gap(torch.zeros(1), window=(8, 8), head_dim=32)
assert gap == 'Triton is not installed', gap
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- what a training log says ---------------------------------------------------------------------


def test_describes_what_runs_behind_each_name(monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    monkeypatch.setattr(backends, 'cpu_rule', lambda: CPU_RULES[-1]._replace(most_kept_tokens=64))
    arch = {'embed_dim': 8, 'depths': (1, 1, 1, 1), 'num_heads': (1, 1, 1, 2)}
    model = SwinTransformerV2(arch, attention=('sequential', 'auto', 'sdpa', 'triton'))
    assert model.describe_attention() == (
        'attention: stage 0 grouped (sequential on a CPU), stages 1-2 kept (sdpa on a CPU), '
        'stage 3 kept (triton on a CPU, as Triton does not run on cpu)'
    )
    assert 'grouped (sdpa on a CPU)' in model.eval().describe_attention()
    model = SwinTransformerV2(arch, attention='flex')
    assert 'no backward' in model.describe_attention()
    assert model.eval().describe_attention() == 'attention: stages 0-3 flex (flex on a CPU)'
    model = SwinTransformerV2(arch, attention='eager')
    assert model.describe_attention() == 'attention: stages 0-3 eager (eager on a CPU)'
    assert model.describe_attention(is_compiled=True).endswith('0-3 traced (eager on a CPU)')


@pytest.mark.parametrize('name', ['auto', 'sequential', 'eager', 'flex', 'triton'])
def test_the_description_names_what_is_called(name, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    ran = []
    for module, kind in (
        (backends, 'grouped'), (backends, 'kept'), (backends.definition, 'eager'),
    ):  # fmt: skip
        original = getattr(module, kind)

        def record(*args, kind=kind, original=original):
            ran.append(kind)
            return original(*args)

        record.__name__ = kind
        monkeypatch.setattr(module, kind, record)
    model = SwinTransformerV2(
        {'embed_dim': 8, 'depths': (1,), 'num_heads': (1,)}, attention=name, out_indices=(0,)
    )
    model(torch.zeros(1, 3, 32, 32))
    assert set(ran) == {model.describe_attention().split()[3]}
