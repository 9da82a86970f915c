"""torch.compile of the whole backbone: no graph break, and one graph for images of every size."""

import shutil

import oracle
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from swinv2_mm.core import SwinTransformerV2

NARROW = {'embed_dim': 8, 'depths': (2, 1), 'num_heads': (1, 2)}
# Odd and even maps, with and without padding of patches, windows and mergings, wide and high.
SIZES = [(64, 96), (66, 55), (80, 80), (51, 97), (128, 64), (61, 90)]

needs_compiler = pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++')


def build(**settings) -> SwinTransformerV2:
    settings = {'arch': NARROW, 'window_size': 4, 'out_indices': (0, 1), **settings}
    model = SwinTransformerV2(drop_path_rate=0.0, **settings)
    oracle.randomise(model, seed=0)
    return model.double()


def outputs_and_gradients(run, model, x):
    outs = run(x)
    loss = sum(out.square().mean() for out in outs)
    return [*outs, *torch.autograd.grad(loss, list(model.parameters()))]


def compiled(model, **settings):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    return torch.compile(model, fullgraph=True, backend=counter, **settings), counter


def assert_same(actual, expected) -> None:
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


ONE_STAGE = {'embed_dim': 8, 'depths': (2,), 'num_heads': (2,)}


@pytest.mark.parametrize(
    ('arch', 'attention'),
    [
        # Graphs with merging in them take half a minute; test_export.py traces some.
        (ONE_STAGE, 'sdpa'),
        pytest.param(NARROW, 'sdpa', marks=pytest.mark.slow),
        pytest.param(NARROW, ('sequential', 'eager'), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_one_graph_serves_images_of_every_size(arch, attention):
    out_indices = tuple(range(len(arch['depths'])))
    model = build(arch=arch, out_indices=out_indices, attention=attention)
    run, counter = compiled(model, dynamic=True)
    graphs = []
    for size in SIZES:
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        actual = outputs_and_gradients(run, model, x)
        assert_same(actual, outputs_and_gradients(model, model, x))
        graphs.append(counter.frame_count)
    assert len(set(graphs)) == 1, graphs


@pytest.mark.parametrize(
    ('kind', 'with_cp'),
    [('log_cpb', False), pytest.param('table', True, marks=pytest.mark.slow)],
)
def test_a_fixed_size_that_clips_windows(kind, with_cp):
    """Maps of 9 x 4 and 5 x 2 tokens, the second lower than a window."""
    model = build(window_size=(4, 6), position_bias=kind, with_cp=with_cp)
    run, _ = compiled(model)
    x = torch.randn(2, 3, 33, 15, dtype=torch.float64)
    expected = outputs_and_gradients(model, model, x)
    assert_same(outputs_and_gradients(run, model, x), expected)
    model.eval()
    with torch.no_grad():
        assert_same(run(x), model(x))


@pytest.mark.parametrize(
    'backend', ['aot_eager', pytest.param('inductor', marks=[pytest.mark.slow, needs_compiler])]
)
def test_float32_which_has_a_matrix_library_of_its_own(backend):
    """Linear layers leave oneDNN to torch's compiler, with gradients and without."""
    model = build(arch=ONE_STAGE, out_indices=(0,)).float()
    x = torch.randn(2, 3, 33, 47)
    torch._dynamo.reset()
    run = torch.compile(model, fullgraph=True, backend=backend)
    expected = outputs_and_gradients(model, model, x)
    for actual, wanted in zip(outputs_and_gradients(run, model, x), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)
    model.eval()
    with torch.no_grad():
        for actual, wanted in zip(run(x), model(x), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)
