"""The fused kernels against the definition, under Triton's interpreter.

Triton decides when it is imported whether kernels are interpreted, so that this file runs itself,
and the oracle tests of the backend, in a process of its own. By hand:

    TRITON_INTERPRET=1 python -m pytest -n 0 -m 'not gpu' -k triton \
        tests/test_attention_triton.py tests/test_attention_oracle.py
"""

import importlib.util
import itertools
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from swinv2_mm.core.attention import BACKENDS
from swinv2_mm.core.attention.eager import eager
from swinv2_mm.core.attention.mask import SEAM_PENALTY
from swinv2_mm.core.attention.prologue import MAX_LOGIT_SCALE
from swinv2_mm.core.attention.triton import fused, triton_gap
from swinv2_mm.core.attention.triton.launch import window_attention
from swinv2_mm.core.window_partition import window_grid

ROOT = Path(__file__).parents[1]
IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
has_triton = importlib.util.find_spec('triton') is not None

outside = pytest.mark.skipif(
    IS_INTERPRETED or not has_triton, reason='needs Triton, and starts the interpreter itself'
)
# Tests of this file that are skipped inside the interpreter.
_OUTSIDE = 'under_interpreter or many_sizes_meets_few'
inside = pytest.mark.skipif(not IS_INTERPRETED, reason='started by test_quick_under_interpreter')


def run_under_interpreter(*arguments: str) -> int:
    """Run tests in a new process; returns how many passed. None may fail or be skipped."""
    command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-n', '0', *arguments]
    environment = {**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert ' skipped' not in done.stdout, done.stdout[-2000:]
    return int(re.search(r'(\d+) passed', done.stdout).group(1))


@outside
def test_quick_under_interpreter():
    files = ('tests/test_attention_triton.py', 'tests/test_attention_hybrid.py')
    passed = run_under_interpreter(
        *files, '-m', 'not slow', '-k', f'triton and not ({_OUTSIDE}) or kernels'
    )
    assert passed >= 4 * len(QUICK)


@outside
@pytest.mark.slow
def test_all_under_interpreter():
    files = [f'tests/test_attention_{name}.py' for name in ('triton', 'hybrid', 'oracle')]
    passed = run_under_interpreter(
        *files, '-m', 'not gpu', '-k', f'triton and not ({_OUTSIDE}) or kernels'
    )
    assert passed >= 80


class Binary(NamedTuple):
    """What the assembler says of a kernel."""

    registers: int
    stack: int
    shared: int
    ptx: str


def machine_code(kernel, types, constants, capability, *, num_warps=4, num_stages=2) -> Binary:
    """Compile a kernel for a GPU that need not be there; arguments without a type are int32."""
    import triton
    from triton.backends import nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    kinds = {n: 'constexpr' if n in constants else types.get(n, 'i32') for n in names}
    aligned = {
        (i,): [['tt.divisibility', 16]] for i, n in enumerate(names) if kinds[n].startswith('*')
    }
    fixed = {n: constants[n] for n in names if n in constants}
    compiled = triton.compile(
        ASTSource(kernel, kinds, fixed, aligned),
        target=GPUTarget('cuda', capability, 32),
        options={'num_warps': num_warps, 'num_stages': num_stages},
    )
    ptx = compiled.asm['ptx']
    target = re.search(r'\.target (\w+)', ptx).group(1)
    # Triton has two, the newer one for newer GPUs.
    for name in ('ptxas', 'ptxas-blackwell'):
        assembler = Path(nvidia.__file__).parent / 'bin' / name
        command = [str(assembler), '-v', f'--gpu-name={target}', '-', '-o', os.devnull]
        done = subprocess.run(command, input=ptx, capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    registers, stack = (
        int(re.search(pattern, done.stderr).group(1))
        for pattern in (r'Used (\d+) registers', r'(\d+) bytes stack frame')
    )
    return Binary(registers, stack, compiled.metadata.shared, ptx)


CAPABILITIES = (80, 86, 89, 90, 100, 120)


@outside
@pytest.mark.slow
@pytest.mark.parametrize('capability', CAPABILITIES)
@pytest.mark.parametrize('side', [8, 24])
def test_compiles_for_nvidia(side, capability):
    """Down to machine code, which needs no GPU: the interpreter takes what a GPU would not."""
    from swinv2_mm.core.attention.triton import backward, backward_keys, launch
    from swinv2_mm.core.attention.triton.forward import RUNTIME, forward_kernel

    qkv = torch.empty(1, 64, 64, 3 * 96, dtype=torch.bfloat16)
    plan = launch._plan(qkv, 3, [side, side, side // 2, side // 2])
    constants = plan.constants | {'WIDE': False, 'FIXED_POINT': True, 'SINGLE': plan.is_single}
    options = {name: constants.pop(name) for name in ('num_warps', 'num_stages')}
    tile, short = constants['BM'], constants['BN']
    maps = ('qkv', 'out', 'd_out', 'd_qkv')
    for kernel, others in (
        (forward_kernel, {'BN': tile if plan.is_single else short}),
        (backward.query_backward_kernel, {}),
        (backward_keys.key_backward_kernel, {'BM': short}),
        (backward_keys.bias_backward_kernel, {'num_warps': 8}),
    ):
        given = constants | others
        warps = given.pop('num_warps', options['num_warps'])
        types = {
            n: '*i64' if n == 'd_bias' else '*bf16' if n in maps else '*fp32'
            for n in kernel.arg_names
            if n not in RUNTIME and n not in given
        }
        binary = machine_code(
            kernel, types, given, capability, num_warps=warps, num_stages=options['num_stages']
        )
        print(f'sm_{capability} {kernel.__name__} {side}: {binary[:3]}')
        # Half precision is multiplied by tensor cores, and fits in the smallest shared memory.
        assert re.search('wgmma.mma_async|mma.sync|tcgen05.mma', binary.ptx)
        assert binary.shared <= 99 * 1024
        # Not held there yet: 64 bytes of the forward kernel of one tile.
        assert binary.stack == 0 or capability == 100


@outside
def test_a_training_on_images_of_many_sizes_meets_few_binaries():
    """Sizes are arguments: what is compiled anew is a head, a tile, and whether windows shift."""
    from swinv2_mm.core.attention.triton import launch

    rng, found = random.Random(0), []
    for _ in range(1500):
        height, width = rng.randrange(480, 801, 8), rng.randrange(480, 1344, 8)
        for stage, (tiling, shifted) in enumerate(itertools.product(('fixed', 'balanced'), (0, 1))):
            size = tuple(-(-side // (4 << stage)) for side in (height, width))
            grid = window_grid(size, window=(32, 32), shifted=bool(shifted), tiling=tiling)
            heads = 3 << stage
            qkv = torch.empty(2, *size, 96 * heads, dtype=torch.bfloat16, device='meta')
            plan = launch._plan(qkv, heads, [*grid.window, *grid.shift])
            found.append((plan.is_single, *sorted(map(str, plan.constants.items()))))
    # Each has a forward and three backward kernels.
    assert 4 * len(set(found)) <= 64
    assert set(found) == set(found[: len(found) // 3])


class Case(NamedTuple):
    size: tuple[int, int]
    window: tuple[int, int]
    shifted: bool = True
    tiling: str = 'fixed'
    heads: int = 1
    head_dim: int = 16
    images: int = 1

    def __str__(self) -> str:
        name = 'map{0[0]}x{0[1]}-window{1[0]}x{1[1]}-head{5}'.format(*self)
        return name + '-shifted' * self.shifted + '-balanced' * (self.tiling == 'balanced')


QUICK = [
    # One tile per window: a seam, padding, several heads and images, a window that is clipped.
    Case((7, 9), (4, 4), heads=2, images=2, head_dim=8),
    Case((5, 9), (8, 8), head_dim=24),
    # Several tiles per window, the last of which is not full; rectangular; padded head.
    Case((10, 13), (9, 10), head_dim=20),
    Case((11, 7), (11, 7), shifted=False, head_dim=32),
]


def random_cases(count: int) -> list[Case]:
    """Sides of 1 to 16 tokens on maps of 1 to 2.5 windows, heads of 4 to 128 channels."""
    rng = random.Random(0)
    cases = []
    for _ in range(count):
        window = tuple(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16]) for _ in range(2))
        size = tuple(rng.randint(max(1, side // 2), side + side // 2 + 2) for side in window)
        shifted, tiling = rng.random() < 0.7, rng.choice(['fixed', 'fixed', 'balanced'])
        head_dim = rng.choice([4, 16, 24, 32, 48, 64, 80, 96, 128])
        cases.append(Case(size, window, shifted, tiling, rng.randint(1, 2), head_dim))
    return cases


LARGE = [
    Case((24, 25), (24, 24), head_dim=32),
    Case((64, 9), (64, 4)),
    Case((8, 40), (40, 40), head_dim=32),
    Case((3, 70), (64, 64)),
]
ALL = [
    *QUICK,
    *(pytest.param(case, marks=pytest.mark.slow) for case in [*random_cases(44), *LARGE]),
]


def operands(case: Case, dtype: torch.dtype) -> tuple:
    """Random operands, a gradient of the output, and the grid; the first head is bounded."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    grid = window_grid(case.size, window=case.window, shifted=case.shifted, tiling=case.tiling)
    offsets = (2 * grid.window[0] - 1) * (2 * grid.window[1] - 1)
    channels = case.heads * case.head_dim
    wide = torch.promote_types(dtype, torch.float32)
    logit_scale = torch.linspace(5.0, 1.0, case.heads + 1)[-case.heads :].reshape(-1, 1, 1)
    qkv = normal(case.images, *case.size, 3 * channels).to(dtype)
    table = (8 + 3 * normal(case.heads, offsets)).to(wide)
    d_out = normal(case.images, *case.size, channels).to(dtype)
    return (qkv, logit_scale.to(wide), table), d_out, grid


def results(backend, inputs, d_out, grid) -> list[torch.Tensor]:
    """Output, and gradients of qkv, logit_scale and table."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = backend(inputs[0], grid, *inputs[1:])
    return [out.detach(), *torch.autograd.grad(out, inputs, d_out)]


def truth(inputs, d_out, grid) -> list[torch.Tensor]:
    return results(eager, [x.double() for x in inputs], d_out.double(), grid)


def errors(actual, expected) -> list[float]:
    """Largest deviations in units of the largest true value; 1e-3 is taken for smaller ones."""
    return [
        ((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-3)).item()
        for a, b in zip(actual, expected, strict=True)
    ]


@inside
@pytest.mark.parametrize('case', ALL, ids=str)
def test_forward_and_every_gradient(case):
    inputs, d_out, grid = operands(case, torch.float64)
    assert triton_gap(inputs[0], window=grid.window, head_dim=case.head_dim) is None
    expected = truth(inputs, d_out, grid)
    # Measured: 2e-14.
    largest = errors(results(fused, inputs, d_out, grid), expected)
    print(case, *(f'{error:.1e}' for error in largest))
    assert max(largest) < 1e-10


# Four windows of one tile, and two of two; both with a seam and padding.
SINGLE, TILED = Case((9, 7), (8, 4), head_dim=32, heads=2), Case((9, 13), (9, 10), head_dim=32)


HALF = [
    SINGLE,
    TILED,
    *(pytest.param(case, marks=pytest.mark.slow) for case in [*random_cases(44), *LARGE]),
]


@inside
@pytest.mark.parametrize('case', HALF, ids=str)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_that_of_eager(case, dtype):
    """Eager rounds nothing but its results: the kernels may add half as much again."""
    inputs, d_out, grid = operands(case, dtype)
    expected = truth(inputs, d_out, grid)
    out, d_qkv, *others = errors(results(fused, inputs, d_out, grid), expected)
    own_out, own_d_qkv, *_ = errors(results(eager, inputs, d_out, grid), expected)
    print(f'{dtype} {case}: {out / own_out:.2f} {d_qkv / own_d_qkv:.2f}', others)
    assert out < 1.5 * own_out
    assert d_qkv < 1.5 * own_d_qkv
    # Errors of scale and table, which stay in float32: sums over small cases err little.
    assert max(others) < 1e-4


@inside
@pytest.mark.parametrize('case', [SINGLE, TILED], ids=str)
def test_single_precision(case):
    inputs, d_out, grid = operands(case, torch.float32)
    expected = truth(inputs, d_out, grid)
    # Measured: 6e-6; eager 1e-6.
    assert max(errors(results(fused, inputs, d_out, grid), expected)) < 2e-5


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@inside
@pytest.mark.parametrize('case', [SINGLE, pytest.param(TILED, marks=pytest.mark.slow)], ids=str)
def test_deterministic_table_gradient(case, deterministic):
    inputs, d_out, grid = operands(case, torch.float32)
    first = results(fused, inputs, d_out, grid)
    assert max(errors(first, truth(inputs, d_out, grid))) < 1e-5
    for a, b in zip(first, results(fused, inputs, d_out, grid), strict=True):
        assert torch.equal(a, b)
    # Gradients of any size: the fixed point follows them.
    for power in (2.0**-60, 2.0**60):
        scaled = results(fused, inputs, d_out * power, grid)[3]
        torch.testing.assert_close(scaled / power, first[3], rtol=1e-6, atol=1e-6)
    d_out[0, 0, 0, 0] = torch.inf
    assert not results(fused, inputs, d_out, grid)[3].isfinite().any()


@inside
@pytest.mark.parametrize('case', [SINGLE, TILED], ids=str)
def test_frozen_table(case):
    inputs, d_out, grid = operands(case, torch.float64)
    qkv = inputs[0].requires_grad_()
    (grad,) = torch.autograd.grad(fused(qkv, grid, *inputs[1:]), qkv, d_out)
    assert errors([grad], truth(inputs, d_out, grid)[1:2])[0] < 1e-10


@inside
def test_zero_vectors_are_no_division_by_zero():
    inputs, d_out, grid = operands(SINGLE, torch.float64)
    inputs[0][:, 2:4] = 0
    actual, expected = results(fused, inputs, d_out, grid), truth(inputs, d_out, grid)
    # The interpreter of Triton 3.8 rounds the least norm, a constant, to float32.
    assert max(errors(actual, expected)) < 1e-8


@inside
def test_nothing_of_n_by_n_is_saved():
    inputs, _, grid = operands(Case((16, 16), (16, 16), head_dim=8), torch.float64)
    sizes = []

    def pack(x):
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        fused(inputs[0].requires_grad_(), grid, *inputs[1:])
    assert sizes
    assert max(sizes) <= inputs[0].numel() < math.prod(grid.window) ** 2


@inside
def test_one_node_for_the_compiler():
    inputs, d_out, grid = operands(QUICK[0], torch.float64)
    compiled = torch.compile(BACKENDS['triton'], fullgraph=True, backend='aot_eager')
    actual, expected = results(compiled, inputs, d_out, grid), truth(inputs, d_out, grid)
    assert max(errors(actual, expected)) < 1e-10


@inside
@pytest.mark.slow
def test_operator_is_registered_as_torch_expects():
    inputs, _, grid = operands(QUICK[0], torch.float64)
    qkv, logit_scale, table = (x.requires_grad_() for x in inputs)
    arguments = (qkv, logit_scale.detach().flatten().requires_grad_(), table)
    torch.library.opcheck(window_attention, (*arguments, [*grid.window, *grid.shift]))


@inside
def test_constants_of_the_kernels():
    from swinv2_mm.core.attention.triton import forward as kernels

    assert kernels.SEAM.value == SEAM_PENALTY
    assert kernels.MAX_LOG.value == MAX_LOGIT_SCALE
