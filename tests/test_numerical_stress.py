"""No backend gives a value that is not finite where float64 has one that the type can hold.

Random configurations of the attention and of whole backbones: map sizes, windows, shifts, tilings,
number types, magnitudes up to the largest of the type, scales up to and beyond the clamp.

    python -m pytest -n 0 -s -m slow tests/test_numerical_stress.py     # 1,000 configurations
"""

import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT
from oracle import randomise

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import BACKENDS
from swinv2_mm.core.attention.eager import eager
from swinv2_mm.core.attention.mask import attention_mask
from swinv2_mm.core.attention.prologue import MAX_LOGIT_SCALE
from swinv2_mm.core.window_partition import window_grid

IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
NUM_DEFAULT, NUM_SLOW, NUM_TRITON = 60, 1000, 120
# Every fifth configuration is a whole backbone.
BACKBONE_EVERY = 5
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Not 1: the cosine of numbers is their sign, and its gradient is what rounding leaves of a
# difference of terms that may be beyond float16.
_HEAD_DIMS = (2, 4, 8, 16, 32)
# What a map or an image shows.
CONTENTS = ('random', 'equal', 'zero', 'half padding', 'one token', 'tiny and huge')


class Attention(NamedTuple):
    """One call of a backend; magnitudes are powers of ten."""

    number: int
    size: tuple[int, int]
    window: tuple[int, int]
    shifted: bool
    tiling: str
    images: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    content: str
    magnitude: float
    logit_scale: float
    cotangent: float


class Backbone(NamedTuple):
    """One training step of a small backbone."""

    number: int
    size_px: tuple[int, int]
    window: int
    tiling: str
    images: int
    dtype: torch.dtype
    is_autocast: bool
    content: str
    magnitude: float
    logit_scale: float
    position_bias: str


def largest_power(dtype):
    # Squares of 1e19 are beyond float32: so large a vector has no length.
    return min(math.log10(torch.finfo(dtype).max), 18.0)


def draw(number):
    rng = random.Random(number)
    dtype, content = rng.choice(DTYPES), rng.choice(CONTENTS)
    logit_scale = rng.choice([MAX_LOGIT_SCALE, rng.uniform(-5, MAX_LOGIT_SCALE), 50.0])
    images = rng.choice([1, 1, 2, 3])
    tiling = rng.choice(['fixed', 'balanced'])
    if number % BACKBONE_EVERY == 0:
        return Backbone(
            number, (rng.randint(1, 70), rng.randint(1, 70)), rng.randint(1, 8), tiling, images,
            dtype, rng.random() < 0.5 and dtype != torch.float32, content,
            rng.uniform(-4, 3), logit_scale, rng.choice(['log_cpb', 'linear_cpb', 'table']),
        )  # fmt: skip
    largest = 12 if IS_INTERPRETED else 24
    size = (rng.randint(1, largest), rng.randint(1, largest))
    window = (rng.randint(1, largest // 2), rng.randint(1, largest // 2))
    return Attention(
        number, size, window, rng.random() < 0.6, tiling, images, rng.randint(1, 3),
        rng.choice(_HEAD_DIMS), dtype, content, rng.uniform(-7, largest_power(dtype)),
        logit_scale, rng.uniform(-4, 3),
    )  # fmt: skip


def fill(shape, generator, *, content, axes):
    """Random numbers around 1 with ``content`` along the two ``axes`` of the map."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    h, w = (shape[axis] for axis in axes)
    if content == 'equal':
        first = x.narrow(axes[0], 0, 1).narrow(axes[1], 0, 1)
        x = first.expand_as(x).clone()
    elif content == 'zero':
        x.zero_()
    elif content == 'half padding':
        x.narrow(axes[0], h // 2, h - h // 2).zero_()
        x.narrow(axes[1], w // 2, w - w // 2).zero_()
    elif content == 'one token':
        token = x.narrow(axes[0], 0, 1).narrow(axes[1], 0, 1).clone()
        x.zero_().narrow(axes[0], 0, 1).narrow(axes[1], 0, 1).copy_(token)
    elif content == 'tiny and huge':
        x *= 10.0 ** torch.randint(-8, 1, shape, generator=generator)
    return x


def attention_values(case, backend, operands, *, with_gradient):
    """Output and gradients of one call."""
    grid = window_grid(case.size, window=case.window, shifted=case.shifted, tiling=case.tiling)
    qkv, logit_scale, bias, cotangent = operands
    if not with_gradient:
        with torch.no_grad():
            return {'out': backend(qkv, grid, logit_scale, bias)}
    inputs = [x.detach().clone().requires_grad_() for x in (qkv, logit_scale, bias)]
    out = backend(inputs[0], grid, *inputs[1:])
    grads = torch.autograd.grad(out, inputs, cotangent.to(out.dtype))
    return dict(zip(('out', 'd_qkv', 'd_scale', 'd_bias'), (out, *grads), strict=True))


def check_attention(case, backends):
    """Names of the values that fail, per backend."""
    generator = torch.Generator().manual_seed(case.number)
    channels = case.heads * case.head_dim
    grid = window_grid(case.size, window=case.window, shifted=case.shifted, tiling=case.tiling)
    shape = (case.images, *case.size, 3 * channels)
    limit = torch.finfo(case.dtype).max
    qkv = fill(shape, generator, content=case.content, axes=(1, 2)) * 10.0**case.magnitude
    qkv = qkv.clamp(-limit, limit).to(case.dtype)
    offsets = (2 * grid.window[0] - 1) * (2 * grid.window[1] - 1)
    bias = 16 * torch.rand((case.heads, offsets), generator=generator)
    logit_scale = torch.full((case.heads, 1, 1), case.logit_scale)
    cotangent = torch.randn((*shape[:3], channels), generator=generator) * 10.0**case.cotangent
    cotangent = cotangent.to(case.dtype)
    operands = (qkv, logit_scale, bias, cotangent)
    exact = attention_values(case, eager, [x.double() for x in operands], with_gradient=True)
    failures = {}
    for name in backends:
        found = attention_values(case, BACKENDS[name], operands, with_gradient=name != 'flex')
        wanted = exact
        if name == 'triton' and case.dtype == torch.float16:
            # A vector without length divides its gradient by 1e-12: that of the kernels' products
            # of halves, which cancel in float32, is then beyond float16.
            lengths = qkv.unflatten(-1, (3, case.heads, -1)).double().norm(dim=-1, keepdim=True)
            is_short = (lengths == 0).expand(*lengths.shape[:-1], case.head_dim).flatten(-3)
            wanted = {**exact, 'd_qkv': exact['d_qkv'].masked_fill(is_short, torch.inf)}
        failures[name] = broken(found, wanted)
    return failures


def backbone_values(case, backend, image, state, *, with_gradient):
    arch = dict(embed_dim=8, depths=(2, 2), num_heads=(1, 2))
    model = SwinTransformerV2(
        arch=arch, window_size=case.window, tiling=case.tiling, drop_path_rate=0.0,
        attention=backend, position_bias=case.position_bias, out_indices=(0, 1),
    ).to(image.dtype)  # fmt: skip
    model.load_state_dict(state)
    is_autocast = case.is_autocast and image.dtype != torch.float64
    with torch.autocast('cpu', dtype=case.dtype, enabled=is_autocast):
        if not with_gradient:
            with torch.no_grad():
                return dict(enumerate(model(image)))
        outs = model(image)
    sum(out.double().square().mean() for out in outs).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {**{str(i): out.detach() for i, out in enumerate(outs)}, **grads}


def check_backbone(case, backends):
    arch = dict(embed_dim=8, depths=(2, 2), num_heads=(1, 2))
    source = SwinTransformerV2(
        arch=arch, window_size=case.window, position_bias=case.position_bias, out_indices=(0, 1)
    )
    randomise(source, seed=case.number)
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if name.endswith('logit_scale'):
                parameter.fill_(case.logit_scale)
    generator = torch.Generator().manual_seed(case.number)
    image = fill((case.images, 3, *case.size_px), generator, content=case.content, axes=(2, 3))
    weights_dtype = torch.float32 if case.is_autocast else case.dtype
    image = (image * 10.0**case.magnitude).to(weights_dtype)
    state = {
        k: v.to(weights_dtype) if v.is_floating_point() else v
        for k, v in source.state_dict().items()
    }
    exact_state = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    exact = backbone_values(case, 'eager', image.double(), exact_state, with_gradient=True)
    exact |= {int(k): v for k, v in exact.items() if k.isdecimal()}
    failures = {}
    for name in backends:
        found = backbone_values(case, name, image, state, with_gradient=name != 'flex')
        failures[name] = broken(found, exact)
    return failures


def broken(found, exact):
    """Names of tensors with a value that is not finite where float64's is one of its type."""
    return [
        f'{key}: {int(wrong.sum())} of {wrong.numel()}'
        for key, value in found.items()
        if (wrong := ~value.isfinite() & exact[key].to(value.dtype).isfinite()).any()
    ]


def stress(numbers, backends):
    """Run configurations; returns what failed, printed with what reproduces it."""
    done, failures = Counter(), []
    for number in numbers:
        case = draw(number)
        check = check_backbone if isinstance(case, Backbone) else check_attention
        for name, wrong in check(case, backends).items():
            done[name] += 1
            if wrong:
                failures.append(f'{name}: {wrong} {case}')
    print(f'\n{len(numbers)} configurations; by backend {dict(done)}; {len(failures)} not finite')
    print(*failures, sep='\n')
    return failures


CPU_BACKENDS = ('eager', 'sdpa', 'sequential', 'flex')


def test_some_configurations():
    assert stress(range(NUM_DEFAULT), CPU_BACKENDS) == []


@pytest.mark.slow
def test_a_thousand_configurations():
    assert stress(range(NUM_SLOW), CPU_BACKENDS) == []


@pytest.mark.skipif(not IS_INTERPRETED, reason='started by test_under_interpreter')
@pytest.mark.slow
def test_triton_configurations():
    # The interpreter takes no bfloat16 beyond what NumPy can add.
    assert stress(range(NUM_TRITON), ('triton',)) == []


@pytest.mark.skipif(IS_INTERPRETED, reason='starts the interpreter itself')
@pytest.mark.slow
def test_under_interpreter():
    pytest.importorskip('triton')
    command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-n', '0', '-s', '-m', '']
    done = subprocess.run(
        [*command, 'tests/test_numerical_stress.py', '-k', 'triton_configurations'],
        cwd=ROOT, env={**os.environ, 'TRITON_INTERPRET': '1'}, capture_output=True, text=True,
    )  # fmt: skip
    print(*re.findall(r'.*configurations;.*', done.stdout))
    assert done.returncode == 0 and '1 passed' in done.stdout, done.stdout[-4000:]


@pytest.mark.parametrize('name', CPU_BACKENDS)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_tokens_without_length(name, dtype):
    """Queries and keys of length 0 or of the smallest number: cosines must not divide by it."""
    grid = window_grid((5, 7), window=(4, 4), shifted=True, tiling='fixed')
    smallest = torch.finfo(dtype).smallest_normal
    # Sums of values come before the division by that of their weights.
    for value in (0.0, smallest, min(torch.finfo(dtype).max / 4, 1e30)):
        qkv = torch.full((1, 5, 7, 3 * 8), value, dtype=dtype)
        logit_scale, bias = torch.full((2, 1, 1), 9.0), torch.zeros(2, 49)
        with torch.no_grad():
            out = BACKENDS[name](qkv, grid, logit_scale, bias)
        # All tokens are alike: attention gives the value back.
        torch.testing.assert_close(out, qkv[..., 16:], rtol=1e-2, atol=0)


def test_windows_of_pure_padding_are_masked_to_something():
    padded = (2, 2, 2, 2)
    make = partial(attention_mask, device=torch.device('cpu'), dtype=torch.float32)
    for rows, columns in ((padded, padded), (padded, (0, 0, 2, 2)), ((0, 1, 2, 2), padded)):
        mask = make((rows, columns))
        assert torch.softmax(mask, dim=-1).isfinite().all()
