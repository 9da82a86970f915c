"""Attention and model of ``swinv2_video`` against the token-by-token oracle; its settings."""

from typing import NamedTuple

import oracle
import pytest
import torch
import video_oracle

from projects.video.swinv2_video import VideoSwinV2
from projects.video.swinv2_video.attention import VIDEO_BACKENDS
from swinv2_mm.core.attention import WindowAttention
from swinv2_mm.core.window_partition import from_windows, to_windows, window_grid

DIM, NUM_HEADS = 6, 2
ARCH = {'embed_dim': 6, 'depths': (2, 2), 'num_heads': (1, 2)}

each_backend = pytest.mark.parametrize('backend', list(VIDEO_BACKENDS))


class Case(NamedTuple):
    size: tuple[int, int, int]
    window: tuple[int, int, int]
    shifted: bool = True
    tiling: str = 'fixed'
    kind: str = 'log_cpb'
    reference: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        return '-'.join(str(value).replace(' ', '') for value in self if value)


CASES = [
    Case((4, 4, 6), (2, 2, 3), shifted=False),
    Case((4, 4, 6), (2, 2, 3)),
    # Padding along every axis, without and with a seam.
    Case((3, 5, 4), (2, 3, 3), shifted=False),
    Case((3, 5, 4), (2, 3, 3)),
    # One window covers time, or height, or all.
    Case((2, 5, 4), (8, 2, 2)),
    Case((5, 2, 5), (2, 4, 3)),
    Case((3, 2, 3), (8, 8, 8)),
    Case((1, 1, 1), (2, 2, 2)),
    Case((3, 3, 2), (1, 1, 1)),
    Case((5, 5, 3), (4, 4, 2), tiling='balanced'),
    # A bias network that was trained at another window, wider and narrower, also in time.
    Case((3, 5, 4), (2, 3, 3), reference=(8, 2, 6)),
    Case((3, 5, 4), (2, 3, 3), reference=(1, 3, 1)),
    Case((3, 5, 4), (2, 3, 3), kind='linear_cpb', reference=(4, 2, 6)),
]


def attention_of(case: Case, backend: str, **kwargs) -> WindowAttention:
    module = WindowAttention(
        DIM,
        num_heads=NUM_HEADS,
        position_bias=case.kind,
        pretrained_window_size=case.reference or case.window,
        backend=VIDEO_BACKENDS[backend],
    )
    oracle.randomise(module, seed=0)
    return module.to(**kwargs)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gradients(out: torch.Tensor, inputs: dict) -> dict:
    found = torch.autograd.grad(out, list(inputs.values()), normal(*out.shape, seed=2))
    return dict(zip(inputs, found, strict=True))


@pytest.mark.parametrize('case', CASES, ids=str)
def test_attention_and_gradients_are_the_oracles(case):
    settings = case._asdict()
    del settings['size']
    settings['reference'] = case.reference or case.window
    params = {n: p.detach().double() for n, p in attention_of(case, 'eager').named_parameters()}
    inputs = {'x': normal(2, *case.size, DIM), **params}
    for tensor in inputs.values():
        tensor.requires_grad_()
    out = video_oracle.attention(inputs['x'], params, **settings)
    expected = gradients(out, inputs)

    grid = window_grid(case.size, window=case.window, shifted=case.shifted, tiling=case.tiling)
    for backend in VIDEO_BACKENDS:
        module = attention_of(case, backend, dtype=torch.float64)
        own = {'x': normal(2, *case.size, DIM).requires_grad_(), **dict(module.named_parameters())}
        own_out = module(own['x'], grid)
        torch.testing.assert_close(own_out, out, rtol=0, atol=1e-12)
        for name, value in gradients(own_out, own).items():
            torch.testing.assert_close(
                value, expected[name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f'{n}: {m}'
            )


@each_backend
def test_float32_and_bfloat16_stay_near_float64(backend):
    case = Case((3, 5, 4), (2, 3, 3))
    grid = window_grid(case.size, window=case.window, shifted=True, tiling='fixed')
    x = normal(2, *case.size, DIM)
    exact = attention_of(case, backend, dtype=torch.float64)(x, grid)
    near = attention_of(case, backend)(x.float(), grid)
    torch.testing.assert_close(near.double(), exact, rtol=0, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        half = attention_of(case, backend)(x.float(), grid)
    # One head has the largest scale there is, 100: a single value may be off by 0.1.
    assert (half - exact).abs().mean() < 0.01


@pytest.mark.parametrize('case', CASES, ids=str)
def test_windows_and_back(case):
    grid = window_grid(case.size, window=case.window, shifted=case.shifted, tiling=case.tiling)
    x = normal(2, *case.size, 3)
    windows = to_windows(x, grid=grid)
    assert windows.shape[2:7:2] == grid.window and windows.shape[1:6:2] == grid.num_windows
    assert torch.equal(from_windows(windows, grid=grid), x)


@pytest.mark.parametrize('backend', ['auto', 'eager'])
def test_model_is_the_oracles(backend):
    windows, references = ((2, 3, 3), (2, 2, 2)), ((4, 2, 2), (4, 6, 6))
    model = VideoSwinV2(
        ARCH, window_size=(3, 2), temporal_window_size=2, out_indices=(1,), attention=backend
    ).double()
    oracle.randomise(model, seed=3)
    model.set_pretrained_window_sizes(references)
    video = normal(2, 3, 5, 18, 14)
    (out,) = model.eval()(video)
    params = dict(model.named_parameters())
    expected = video_oracle.backbone(
        video, params, depths=ARCH['depths'], windows=windows, references=references
    )
    assert out.shape == (2, 12, 3, 3, 2)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)


def test_windows_change_and_parameters_do_not():
    model = VideoSwinV2(ARCH, out_indices=(0, 1), window_size=(16, 8), temporal_window_size=8)
    oracle.randomise(model, seed=0)
    before = {n: p.clone() for n, p in model.named_parameters()}
    for window in (20, 24):
        model.set_window_size(window)
        assert model.window_sizes == ((8, window, window),) * 2
        assert model.get_pretrained_window_sizes() == ((8, 16, 16), (8, 8, 8))
    model.set_window_size((24, (12, 10)), temporal_window_size=4)
    assert model.window_sizes == ((4, 24, 24), (4, 12, 10))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_pretrained_window_sizes_travel_with_the_weights():
    trained = VideoSwinV2(ARCH, out_indices=(0, 1), window_size=4, temporal_window_size=3)
    oracle.randomise(trained, seed=0)
    other = VideoSwinV2(ARCH, out_indices=(0, 1), window_size=6, temporal_window_size=2)
    other.load_state_dict(trained.state_dict())
    assert (
        other.get_pretrained_window_sizes() == ((3, 4, 4),) * 2
        and other.window_sizes == ((2, 6, 6),) * 2
    )
    other.set_window_size(4, temporal_window_size=3)
    video = normal(1, 3, 7, 33, 20).float()
    for a, b in zip(trained.eval()(video), other.eval()(video), strict=True):
        assert torch.equal(a, b)


def test_activation_checkpoints_change_nothing():
    video = normal(1, 3, 4, 16, 16).float()
    found = []
    for with_cp in (False, True):
        model = VideoSwinV2(
            ARCH, out_indices=(0, 1), window_size=2, temporal_window_size=2, with_cp=with_cp
        )
        oracle.randomise(model, seed=0)
        model.eval()(video)[-1].square().sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'window_size': (8, 8, 8)}, 'one value or 2'),
        ({'window_size': 0}, r'\(time, height, width\)'),
        ({'temporal_window_size': 2.5}, r'\(time, height, width\)'),
        ({'patch_size': (2, 4)}, 'patch_size takes'),
        ({'position_bias': 'table'}, "no position_bias='table'"),
        ({'attention': 'triton'}, "no attention 'triton' for videos"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        VideoSwinV2(ARCH, out_indices=(0, 1), **settings)


def test_bias_is_not_baked():
    with pytest.raises(NotImplementedError, match='no table'):
        VideoSwinV2(ARCH, out_indices=(0, 1)).bake_position_bias()
