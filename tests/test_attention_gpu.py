"""Every backend on a CUDA device against ``eager`` in float64. Not part of the default run.

    python -m pytest -n 0 -m gpu tests/test_attention_gpu.py -rs -s

needs one NVIDIA GPU of compute capability 8.0 or newer, and Triton; a few minutes, most of them
compilation. ``-s`` prints the measured errors. Written on a machine without a GPU: the kernels were
run there under Triton's interpreter and compiled for 8.0 and 9.0, but this file was never run, and
its tolerances in half precision come from the rounding steps, not from a measurement.
"""

import logging
from typing import NamedTuple

import pytest
import torch

from swinv2_mm.core.attention import BACKENDS, backends
from swinv2_mm.core.attention.eager import eager
from swinv2_mm.core.window_partition import window_grid

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
]


class Case(NamedTuple):
    size: tuple[int, int]
    window: tuple[int, int]
    shifted: bool = True
    heads: int = 3
    head_dim: int = 32
    images: int = 2
    tiling: str = 'fixed'

    def __str__(self) -> str:
        (h, w), (mh, mw) = self.size, self.window
        return f'map{h}x{w}-window{mh}x{mw}-head{self.head_dim}' + '-shifted' * self.shifted


CASES = [
    Case((64, 64), (8, 8), shifted=False, images=8),
    Case((64, 64), (8, 8), images=8),
    Case((50, 84), (8, 8)),
    Case((7, 13), (4, 4), head_dim=64),
    Case((33, 35), (12, 12), head_dim=64),
    Case((40, 30), (16, 16)),
    Case((40, 30), (16, 16), tiling='balanced'),
    Case((30, 50), (7, 20), head_dim=48),
    Case((48, 50), (24, 24)),
    Case((40, 40), (40, 40), shifted=False),
    Case((41, 70), (40, 40)),
    Case((20, 90), (64, 64), heads=2, head_dim=128),
    Case((64, 70), (64, 64), heads=1, images=1),
]
# Forward, gradients; in units of the largest true value. Half precision rounds the output to 8 or
# 11 bits (2e-3, 2.4e-4 of it), and the fused kernels the weights of the forward pass as well.
TOLERANCES = {
    torch.float32: (2e-5, 5e-5),
    torch.bfloat16: (6e-3, 2e-2),
    torch.float16: (1e-3, 4e-3),
}


@pytest.fixture(autouse=True)
def no_fallback(caplog):
    """A backend that falls back would be tested against the wrong thing."""
    backends._log_once.cache_clear()
    caplog.set_level(logging.WARNING)
    yield
    assert not [message for message in caplog.messages if 'falls back' in message]


def operands(case: Case, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).cuda()

    grid = window_grid(case.size, window=case.window, shifted=case.shifted, tiling=case.tiling)
    offsets = (2 * grid.window[0] - 1) * (2 * grid.window[1] - 1)
    channels = case.heads * case.head_dim
    qkv = normal(case.images, *case.size, 3 * channels).to(dtype)
    logit_scale = torch.linspace(5.0, 1.0, case.heads).reshape(-1, 1, 1).cuda()
    table = (8 + 3 * normal(case.heads, offsets)).float()
    d_out = normal(case.images, *case.size, channels).to(dtype)
    return (qkv, logit_scale, table), d_out, grid


def results(backend, inputs, d_out, grid):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = backend(inputs[0], grid, *inputs[1:])
    return [out.detach(), *torch.autograd.grad(out, inputs, d_out)]


def errors(actual, inputs, d_out, grid) -> list[float]:
    """Of the output and the gradients of qkv, logit_scale and table."""
    truth = results(eager, [x.double() for x in inputs], d_out.double(), grid)
    return [
        ((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-3)).item()
        for a, b in zip(actual, truth, strict=True)
    ]


@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('backend', BACKENDS)
def test_forward_and_every_gradient(backend, case, dtype):
    if backend == 'flex' and case.head_dim == 48:
        pytest.skip('flex_attention takes powers of two; the fall-back is tested elsewhere')
    inputs, d_out, grid = operands(case, dtype)
    run = BACKENDS[backend]
    out, *grads = errors(results(run, inputs, d_out, grid), inputs, d_out, grid)
    print(f'{backend} {case} {dtype}: forward {out:.1e}, gradients', *(f'{e:.1e}' for e in grads))
    assert out < TOLERANCES[dtype][0]
    assert max(grads) < TOLERANCES[dtype][1], grads


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_triton_rounds_no_more_than_eager(case, dtype):
    """Of the output and the gradient of the map."""
    inputs, d_out, grid = operands(case, dtype)
    ours = errors(results(BACKENDS['triton'], inputs, d_out, grid), inputs, d_out, grid)[:2]
    own = errors(results(eager, inputs, d_out, grid), inputs, d_out, grid)[:2]
    print(f'{case} {dtype}: {ours} against {own}')
    assert all(a < 1.5 * b for a, b in zip(ours, own, strict=True))


@pytest.mark.parametrize('case', [CASES[1], CASES[5], CASES[10]], ids=str)
def test_triton_is_deterministic_on_demand(case):
    inputs, d_out, grid = operands(case, torch.bfloat16)
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (results(BACKENDS['triton'], inputs, d_out, grid) for _ in range(5))
    finally:
        torch.use_deterministic_algorithms(False)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert max(errors(first, inputs, d_out, grid)[1:]) < TOLERANCES[torch.bfloat16][1]


@pytest.mark.parametrize('side', [32, 64])
def test_triton_memory_has_no_square_term(side):
    """Beyond the gradients, a training step holds the output and a few numbers per token."""
    inputs, d_out, grid = operands(Case((128, 128), (side, side), images=1), torch.bfloat16)
    results(BACKENDS['triton'], inputs, d_out, grid)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results(BACKENDS['triton'], inputs, d_out, grid)
    # Clones of qkv and its gradient, the output and its clone; tables are far smaller.
    assert torch.cuda.max_memory_allocated() - before < 6 * inputs[0].nbytes


@pytest.mark.parametrize('backend', ['triton', 'sdpa'])
def test_compiles_into_one_graph(backend):
    inputs, d_out, grid = operands(CASES[5], torch.bfloat16)
    run = torch.compile(BACKENDS[backend], fullgraph=True)
    out, *grads = errors(results(run, inputs, d_out, grid), inputs, d_out, grid)
    assert out < TOLERANCES[torch.bfloat16][0]
    assert max(grads) < TOLERANCES[torch.bfloat16][1]


def test_triton_can_be_captured_in_a_cuda_graph():
    (qkv, logit_scale, table), _, grid = operands(CASES[1], torch.bfloat16)
    with torch.no_grad():
        expected = BACKENDS['triton'](qkv, grid, logit_scale, table)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = BACKENDS['triton'](qkv, grid, logit_scale, table)
        graph.replay()
    assert torch.equal(out, expected)
