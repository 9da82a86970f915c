"""Every attention backend against the token-by-token oracle."""

import functools
from typing import NamedTuple

import oracle
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from swinv2_mm.core.attention import BACKENDS, WindowAttention, resolve_backend
from swinv2_mm.core.window_partition import window_grid

DIM, NUM_HEADS = 12, 3

each_backend = pytest.mark.parametrize('backend', list(BACKENDS))


class Case(NamedTuple):
    size: tuple[int, int]
    window: tuple[int, int]
    shifted: bool = True
    tiling: str = 'fixed'
    kind: str = 'log_cpb'
    reference: tuple[int, int] | None = None

    def settings(self) -> dict:
        settings = self._asdict()
        del settings['size']
        return settings | {'reference': self.reference or self.window}

    def __str__(self) -> str:
        parts = [f'map{self.size[0]}x{self.size[1]}', f'window{self.window[0]}x{self.window[1]}']
        parts += ['shifted'] * self.shifted + [self.tiling] * (self.tiling != 'fixed')
        parts += [self.kind] * (self.kind != 'log_cpb')
        parts += [f'reference{self.reference[0]}x{self.reference[1]}'] if self.reference else []
        return '-'.join(parts)


CASES = [
    # Windows fit exactly, without and with a seam.
    Case((8, 12), (4, 4), shifted=False),
    Case((8, 12), (4, 4)),
    # Padding, without and with a seam.
    Case((7, 13), (4, 4), shifted=False),
    Case((7, 13), (4, 4)),
    Case((33, 21), (8, 8)),
    # Padding reaches over two windows of the shifted map.
    Case((9, 9), (8, 8)),
    Case((9, 17), (8, 8)),
    # The map fits in one window: along both axes, along one, exactly.
    Case((1, 1), (4, 4)),
    Case((5, 5), (8, 8)),
    Case((5, 19), (8, 8)),
    Case((19, 5), (8, 8)),
    Case((8, 9), (8, 8)),
    # Rectangles, odd sides, single tokens.
    Case((10, 11), (3, 5)),
    Case((11, 10), (5, 3)),
    Case((6, 5), (1, 1)),
    Case((7, 5), (1, 4)),
    Case((13, 10), (6, 6), tiling='balanced'),
    Case((9, 17), (8, 8), tiling='balanced'),
    Case((13, 10), (6, 6), shifted=False, tiling='balanced'),
    # A bias network that was trained at another window.
    Case((7, 13), (4, 4), reference=(8, 8)),
    Case((7, 13), (4, 6), reference=(3, 7)),
    Case((7, 13), (4, 4), reference=(1, 1)),
    Case((7, 13), (4, 4), kind='linear_cpb'),
    Case((7, 13), (4, 6), kind='linear_cpb', reference=(3, 7)),
    # Learnt tables: exact, clipped to the centre, resampled, resampled and clipped.
    Case((7, 13), (4, 4), kind='table'),
    Case((10, 11), (3, 5), kind='table'),
    Case((5, 19), (8, 8), kind='table'),
    Case((13, 10), (6, 6), tiling='balanced', kind='table'),
    Case((7, 13), (4, 4), kind='table', reference=(3, 5)),
    Case((5, 13), (6, 6), kind='table', reference=(7, 4)),
]


SHIFTED = Case((9, 13), (8, 4))


def build(case: Case, backend: str) -> WindowAttention:
    module = WindowAttention(
        DIM,
        num_heads=NUM_HEADS,
        position_bias=case.kind,
        pretrained_window_size=case.reference or case.window,
        backend=BACKENDS[backend],
    )
    oracle.randomise(module, seed=0)
    return module


def grid_of(case: Case):
    return window_grid(case.size, window=case.window, shifted=case.shifted, tiling=case.tiling)


def random_map(case: Case, channels: int = DIM, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, *case.size, channels, generator=generator, dtype=torch.float64).to(dtype)


def gradients(out, inputs: dict) -> dict:
    generator = torch.Generator().manual_seed(2)
    cotangent = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    return dict(
        zip(inputs, torch.autograd.grad(out, list(inputs.values()), cotangent), strict=True)
    )


@functools.cache
def expected(case: Case) -> tuple[torch.Tensor, dict]:
    params = {n: p.detach().double() for n, p in build(case, 'eager').named_parameters()}
    inputs = {'x': random_map(case), **params}
    for tensor in inputs.values():
        tensor.requires_grad_()
    out = oracle.attention(inputs['x'], params, **case.settings())
    return out.detach(), gradients(out, inputs)


def largest_error(actual: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest deviation in units of the largest true value."""
    return ((actual - truth).abs().max() / truth.abs().max().clamp_min(1e-30)).item()


@each_backend
@pytest.mark.parametrize('case', CASES, ids=str)
def test_forward_and_every_gradient(case, backend):
    out, grads = expected(case)
    module = build(case, backend).double()
    inputs = {'x': random_map(case).requires_grad_(), **dict(module.named_parameters())}
    actual = module(inputs['x'], grid_of(case))
    assert actual.shape == out.shape
    # Measured: 7e-15.
    assert largest_error(actual, out) < 1e-9
    actual_grads = gradients(actual, inputs)
    assert actual_grads.keys() == grads.keys()
    # One scale for all: some gradients, as that of a bound logit_scale, are zero.
    scale = max(grad.abs().max().item() for grad in grads.values())
    for name, grad in actual_grads.items():
        # Measured: 2e-14.
        error = (grad - grads[name]).abs().max().item() / scale
        assert error < 1e-9, f'{name}: {error}'


@each_backend
@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
def test_gradient_with_a_frozen_bias(backend, kind):
    """Torch takes another kernel where the bias needs no gradient."""
    case = SHIFTED._replace(kind=kind)
    _, grads = expected(case)
    module = build(case, backend).double().requires_grad_(False)
    x = random_map(case).requires_grad_()
    grad = gradients(module(x, grid_of(case)), {'x': x})['x']
    assert largest_error(grad, grads['x']) < 1e-9


def random_operands(case: Case, dtype: torch.dtype) -> tuple:
    generator = torch.Generator().manual_seed(3)
    grid = grid_of(case)
    offsets = (2 * grid.window[0] - 1) * (2 * grid.window[1] - 1)
    logit_scale = torch.tensor([5.0, 3.0, 0.0]).reshape(NUM_HEADS, 1, 1)
    table = 16 * torch.rand(NUM_HEADS, offsets, generator=generator, dtype=torch.float64)
    # The rounded values are the truth for all types.
    return random_map(case, 3 * DIM, dtype), grid, logit_scale.to(dtype), table.float()


def attend_by_oracle(qkv, case: Case, *, logit_scale, table):
    mh, mw = grid_of(case).window
    axes = tuple(
        oracle.lay_windows(length, window=side, shifted=case.shifted, tiling=case.tiling)
        for length, side in zip(case.size, case.window, strict=True)
    )
    return oracle.attend(
        qkv.double(),
        logit_scale=logit_scale.double(),
        bias=lambda dy, dx: table.double()[:, (dy + mh - 1) * (2 * mw - 1) + dx + mw - 1],
        axes=axes,
    )


# Measured for eager and sdpa: 5e-6, 2.3e-3 and 3e-4, the last two being the rounding of the
# output. Logits reach 100: with bfloat16 cosines the error would be 5e-2.
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 5e-3, torch.float16: 1e-3}


@each_backend
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
def test_backend_contract_in_lower_precision(backend, dtype):
    qkv, grid, logit_scale, table = random_operands(SHIFTED, dtype)
    truth = attend_by_oracle(qkv, SHIFTED, logit_scale=logit_scale, table=table)
    out = BACKENDS[backend](qkv, grid, logit_scale, table)
    assert out.shape == (2, *SHIFTED.size, DIM)
    assert out.dtype == dtype
    tolerance = TOLERANCES[dtype]
    if backend == 'hybrid' and dtype != torch.float32:
        # Cosines in float16: measured 7e-3 and 5e-3.
        tolerance = 1e-2
    assert largest_error(out.double(), truth) < tolerance


@each_backend
def test_backend_takes_a_strided_map(backend):
    qkv, grid, logit_scale, table = random_operands(SHIFTED, torch.float64)
    dense = BACKENDS[backend](qkv, grid, logit_scale, table)
    strided = qkv.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert not strided.is_contiguous()
    torch.testing.assert_close(BACKENDS[backend](strided, grid, logit_scale, table), dense)


@each_backend
def test_backend_takes_any_batch(backend):
    qkv, grid, logit_scale, table = random_operands(SHIFTED, torch.float64)
    both = BACKENDS[backend](qkv, grid, logit_scale, table)
    second = BACKENDS[backend](qkv[1:], grid, logit_scale, table)
    torch.testing.assert_close(second, both[1:])


class Spy:
    """Stands where a backend does and keeps what it was given."""

    def __init__(self, backend) -> None:
        self.backend = backend

    def __call__(self, qkv, grid, logit_scale, bias):
        self.autocast = torch.is_autocast_enabled('cpu')
        self.qkv, self.logit_scale, self.bias = qkv, logit_scale, bias
        self.out = self.backend(qkv, grid, logit_scale, bias)
        return self.out


@each_backend
@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb', 'table'])
def test_autocast_leaves_logits_and_bias_in_float32(backend, kind):
    case = SHIFTED._replace(kind=kind)
    module, x = build(case, backend), random_map(case, dtype=torch.float32)
    module.backend = spy = Spy(BACKENDS[backend])
    module(x, grid_of(case))
    bias = spy.bias
    with torch.autocast('cpu', torch.bfloat16):
        out = module(x, grid_of(case))
    # The linear layers do run in half precision ...
    assert out.dtype == spy.qkv.dtype == spy.out.dtype == torch.bfloat16
    # ... the bias network does not, and the backend computes as accurately as with float32.
    assert not spy.autocast
    assert spy.bias.dtype == torch.float32
    assert torch.equal(spy.bias, bias)
    truth = attend_by_oracle(spy.qkv, case, logit_scale=spy.logit_scale, table=spy.bias)
    assert largest_error(spy.out.double(), truth) < TOLERANCES[torch.bfloat16]


def test_autocast_eager_multiplies_in_float32():
    """By operation, where the operations are visible."""

    class Record(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen = {}

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            dtypes = {a.dtype for a in args if isinstance(a, torch.Tensor)}
            self.seen.setdefault(name, set()).update(dtypes)
            return func(*args, **(kwargs or {}))

    module = build(SHIFTED, 'eager')
    x = random_map(SHIFTED, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        qkv = torch.nn.functional.linear(x, module.qkv.weight)
        assert qkv.dtype == torch.bfloat16
        with Record() as record:
            module(x, grid_of(SHIFTED))
    for name in ('bmm', '_softmax', 'sigmoid', 'exp'):
        assert record.seen[name] == {torch.float32}, name


@each_backend
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_module_in_half_precision(backend, dtype):
    out, _ = expected(SHIFTED)
    module, x = build(SHIFTED, backend).to(dtype), random_map(SHIFTED, dtype=dtype)
    actual = module(x, grid_of(SHIFTED))
    assert actual.dtype == dtype
    # Measured: 6e-2 and 4e-3: weights and qkv are rounded, and logits reach 100.
    assert largest_error(actual.double(), out) < (0.2 if dtype == torch.bfloat16 else 0.02)


def test_scale_stops_at_one_hundred():
    """Above ln 100 a larger logit_scale changes nothing and gets no gradient."""
    _, grads = expected(SHIFTED)
    first, *others = grads['logit_scale'].flatten().tolist()
    assert first == 0
    assert all(abs(grad) > 1e-6 for grad in others)


def test_resolve_backend():
    assert set(BACKENDS) == {'eager', 'sdpa', 'hybrid', 'flex', 'triton', 'sequential'}
    for name, backend in BACKENDS.items():
        assert resolve_backend(name) is backend
    with pytest.raises(ValueError, match='flsh'):
        resolve_backend('flsh')
