"""The whole backbone: sizes, names, settings, start, freezing, saving and loading."""

import copy
import io
import math
import pickle
from itertools import pairwise

import oracle
import pytest
import torch
from torch import nn

from swinv2_mm.core import ARCHITECTURES, Architecture, SwinTransformerV2
from swinv2_mm.core.attention import BACKENDS
from swinv2_mm.core.blocks import DropPath, SwinBlock
from swinv2_mm.core.patches import PatchEmbed, PatchMerging
from swinv2_mm.core.window_partition import window_grid

NARROW = {'embed_dim': 8, 'depths': (2, 2, 2, 1), 'num_heads': (1, 2, 2, 4)}
WIDE = {'embed_dim': 64, 'depths': (2, 1, 1, 1), 'num_heads': (2, 4, 4, 8)}


def build(seed: int = 0, **settings) -> SwinTransformerV2:
    """A narrow model without stochastic depth and with telling weights."""
    settings = {'arch': NARROW, 'window_size': 4, 'drop_path_rate': 0.0, **settings}
    model = SwinTransformerV2(**settings)
    oracle.randomise(model, seed=seed)
    return model


def image(height: int = 50, width: int = 70, *, batch: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=generator)


def same(actual, expected, **tolerances) -> None:
    """Same maps, bit by bit unless tolerances are given."""
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, **(tolerances or {'rtol': 0, 'atol': 0}))


def differ(actual, expected) -> bool:
    return any((a - e).abs().max() > 1e-3 for a, e in zip(actual, expected, strict=True))


# --- against the oracle -------------------------------------------------------------------------


@pytest.mark.parametrize('with_extra_norm', [False, True])
def test_block_is_the_oracles(with_extra_norm):
    arch = NARROW | {'extra_norm_every': 1 if with_extra_norm else None}
    block = build(arch=arch).double().layers[0].blocks[1]
    x = torch.randn(2, 7, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = window_grid((7, 9), window=(4, 4), shifted=True, tiling='fixed')
    params = dict(block.named_parameters())
    assert any(name.startswith('norm3') for name in params) == with_extra_norm
    expected = oracle.block(x, params, window=(4, 4), reference=(4, 4), shifted=True)
    torch.testing.assert_close(block(x, grid), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('size', [(6, 4), (5, 4), (4, 7), (1, 1), (3, 5)])
def test_patch_merging_is_the_oracles(size):
    merging = PatchMerging(6).double()
    oracle.randomise(merging, seed=0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *size, 6, dtype=torch.float64, generator=generator)
    expected = oracle.patch_merging(x, dict(merging.named_parameters()))
    torch.testing.assert_close(merging(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(('size', 'patch'), [((8, 12), 4), ((9, 7), 4), ((1, 1), 4), ((5, 8), 3)])
def test_patch_embedding_is_the_oracles(size, patch):
    embed = PatchEmbed(3, dim=6, patch_size_px=patch).double()
    oracle.randomise(embed, seed=0)
    x = image(*size).double()
    expected = oracle.patch_embedding(x, dict(embed.named_parameters()))
    torch.testing.assert_close(embed(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('tiling', ['fixed', 'balanced'])
@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb', 'table'])
def test_model_is_the_oracles(kind, tiling):
    """Other windows, rectangles and references per stage; forward and all gradients."""
    windows, references = ((4, 4), (3, 5), (4, 4), (2, 2)), ((6, 6), (3, 5), (4, 4), (3, 3))
    arch = NARROW | {'extra_norm_every': 2}
    model = build(
        arch=arch,
        window_size=windows,
        pretrained_window_sizes=references,
        position_bias=kind,
        tiling=tiling,
    ).double()
    x = image(45, 61, batch=1).double()
    params = dict(model.named_parameters())
    expected = oracle.backbone(
        x,
        params,
        depths=arch['depths'],
        windows=windows,
        references=references,
        out_indices=(0, 1, 2, 3),
        kind=kind,
        tiling=tiling,
    )
    outs = model(x)
    # Measured: 7e-14; the gradients below 5e-10, in values of up to thousands.
    same(outs, expected, rtol=1e-9, atol=1e-9)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(out.shape, generator=generator).double() for out in outs]
    grads, truths = (
        torch.autograd.grad(
            sum((m * w).sum() for m, w in zip(maps, weights, strict=True)), list(params.values())
        )
        for maps in (outs, expected)
    )
    for name, grad, truth in zip(params, grads, truths, strict=True):
        torch.testing.assert_close(
            grad, truth, rtol=1e-7, atol=1e-8, msg=lambda text, name=name: f'{name}: {text}'
        )


# --- sizes and shapes ---------------------------------------------------------------------------


def count_millions(arch: str) -> float:
    with torch.device('meta'):
        model = SwinTransformerV2(arch, out_indices=(3,))
        head = nn.Linear(model.out_channels[-1], 1000)
    assert all(p.is_meta for p in model.parameters())
    return sum(p.numel() for p in (*model.parameters(), *head.parameters())) / 1e6


@pytest.mark.parametrize(
    ('arch', 'millions'),
    [('tiny', '28.35'), ('small', '49.73'), ('base', '87.92'), ('large', '196.74')],
)
def test_number_of_parameters(arch, millions):
    """With a 1000-class head, as published."""
    assert f'{count_millions(arch):.2f}' == millions


@pytest.mark.parametrize(
    ('arch', 'millions', 'tolerance'),
    [('huge', 658, 0.01), ('giant', 3000, 0.02), ('simmim_giant', 1060, 0.01)],
)
def test_number_of_parameters_of_the_largest(arch, millions, tolerance):
    """The paper rounds these, and gives no head count for H."""
    assert count_millions(arch) == pytest.approx(millions, rel=tolerance)


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_heads_have_32_channels(arch):
    architecture = ARCHITECTURES[arch]
    pairs = zip(architecture.dims, architecture.num_heads, strict=True)
    assert {dim // heads for dim, heads in pairs} == {32}


SIZES = [(1, 1), (1, 37), (4, 4), (31, 33), (64, 64), (50, 101)]


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('window_size', [1, 4, (4, 4, (2, 3), 7)], ids=str)
def test_output_shapes(size, window_size):
    model = build(window_size=window_size)
    outs = model(image(*size))
    assert isinstance(outs, tuple)
    for out, channels, stride in zip(outs, (8, 16, 32, 64), (4, 8, 16, 32), strict=True):
        assert out.shape == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        assert out.is_contiguous()
        assert out.isfinite().all()


def test_out_channels_and_strides():
    model = build(out_indices=(1, 3))
    assert model.out_channels == (16, 64)
    assert model.out_strides == (8, 32)
    assert [out.shape for out in model(image(64, 64))] == [(2, 16, 8, 8), (2, 64, 2, 2)]


def test_other_patch_size_and_image_channels():
    model = build(patch_size_px=2, in_channels=1)
    assert model.out_strides == (2, 4, 8, 16)
    outs = model(image(31, 17)[:, :1])
    assert [out.shape[2:] for out in outs] == [(16, 9), (8, 5), (4, 3), (2, 2)]


def test_image_without_a_batch():
    with torch.device('meta'), pytest.raises(ValueError, match=r'\(B, C, H, W\)'):
        SwinTransformerV2()(torch.zeros(3, 64, 64))


def test_forward_on_the_meta_device():
    """Shapes without memory, as model summaries ask for."""
    with torch.device('meta'):
        model = SwinTransformerV2(NARROW, window_size=4)
        outs = model(torch.empty(1, 3, 50, 70))
    assert [out.shape[2:] for out in outs] == [(13, 18), (7, 9), (4, 5), (2, 3)]


def test_an_image_of_a_batch_is_independent_of_the_others():
    model, x = build().double(), image().double()
    same(model(x[1:]), [out[1:] for out in model(x)], rtol=1e-12, atol=1e-12)


# --- names --------------------------------------------------------------------------------------


def official_names(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released weights, with a norm per output and the reference."""

    def linear(name: str, n_in: int, n_out: int, bias: bool = True) -> dict:
        return {f'{name}.weight': (n_out, n_in)} | ({f'{name}.bias': (n_out,)} if bias else {})

    def norm(name: str, dim: int) -> dict:
        return {f'{name}.weight': (dim,), f'{name}.bias': (dim,)}

    c = arch.embed_dim
    names = {'patch_embed.proj.weight': (c, 3, 4, 4), 'patch_embed.proj.bias': (c,)}
    names |= norm('patch_embed.norm', c) | {'pretrained_window_sizes': (len(arch.depths), 2)}
    for i, (depth, heads, dim) in enumerate(
        zip(arch.depths, arch.num_heads, arch.dims, strict=True)
    ):
        for j in range(depth):
            block = f'layers.{i}.blocks.{j}'
            names |= {f'{block}.attn.logit_scale': (heads, 1, 1)}
            names |= {f'{block}.attn.{kind}_bias': (dim,) for kind in 'qv'}
            names |= linear(f'{block}.attn.qkv', dim, 3 * dim, bias=False)
            names |= linear(f'{block}.attn.cpb_mlp.0', 2, 512)
            names |= linear(f'{block}.attn.cpb_mlp.2', 512, heads, bias=False)
            names |= linear(f'{block}.attn.proj', dim, dim)
            names |= norm(f'{block}.norm1', dim) | norm(f'{block}.norm2', dim)
            names |= linear(f'{block}.mlp.fc1', dim, 4 * dim)
            names |= linear(f'{block}.mlp.fc2', 4 * dim, dim)
            if arch.extra_norm_every and (j + 1) % arch.extra_norm_every == 0:
                names |= norm(f'{block}.norm3', dim)
        if i < len(arch.depths) - 1:
            names |= linear(f'layers.{i}.downsample.reduction', 4 * dim, 2 * dim, bias=False)
            names |= norm(f'layers.{i}.downsample.norm', 2 * dim)
        names |= norm(f'norm{i}', dim)
    return names


def shapes(model: nn.Module) -> dict:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize('arch', ['tiny', 'giant'])
def test_state_dict_names_and_shapes_are_frozen(arch):
    with torch.device('meta'):
        model = SwinTransformerV2(arch)
    assert shapes(model) == official_names(ARCHITECTURES[arch])


def test_state_dict_of_tiny_has_this_many_entries():
    """Guards the rule above against a change made on both sides."""
    with torch.device('meta'):
        assert len(shapes(SwinTransformerV2('tiny'))) == 4 + 12 * 17 + 3 * 3 + 4 * 2 + 1


def test_state_dict_of_a_learnt_table():
    model = build(position_bias='table', window_size=(4, (3, 5), 4, 4))
    names = shapes(model)
    assert not any('cpb_mlp' in name for name in names)
    assert names['layers.1.blocks.0.attn.relative_position_bias_table'] == (5 * 9, 2)


def test_running_adds_nothing_to_the_state_dict():
    model = build()
    before = shapes(model)
    model(image())
    with torch.no_grad():
        model.eval()(image(33, 90))
    assert shapes(model) == before
    assert [name for name, _ in model.named_buffers()] == ['pretrained_window_sizes']


def test_extra_norm_follows_every_sixth_block():
    arch = {'embed_dim': 8, 'depths': (1, 13, 5), 'num_heads': (1, 1, 1), 'extra_norm_every': 6}
    model = SwinTransformerV2(arch, out_indices=(0, 1, 2))
    found = {name for name in model.state_dict() if 'norm3' in name}
    assert found == {
        f'layers.1.blocks.{i}.norm3.{kind}' for i in (5, 11) for kind in ('weight', 'bias')
    }
    huge = {
        name
        for name in official_names(ARCHITECTURES['huge'])
        if 'blocks' in name and 'norm3.weight' in name
    }
    assert huge == {f'layers.2.blocks.{i}.norm3.weight' for i in (5, 11, 17)}


# --- settings -----------------------------------------------------------------------------------


# By argument; each message holds its name, or the word that stands before the values.
REFUSED = {
    'arch': ['tny', 'xxl', 7, {'embed_dim': 8, 'depths': (1,)}, NARROW | {'dephts': (1,)}],
    'arch: stage': [NARROW | {'num_heads': (1, 2)}],
    'arch: heads': [NARROW | {'num_heads': (3, 2, 2, 4)}],
    'arch: depths': [NARROW | {'depths': 2}],
    'arch: positive': [
        NARROW | change
        for change in (
            {'embed_dim': 0}, {'embed_dim': 8.0}, {'depths': (2, 2, -1, 2)},
            {'extra_norm_every': 0}, {'extra_norm_every': -6},
        )
    ],
    'window_size': [
        0, -7, True, 8.0, None, '8888', (8, 8, 8, 0), (8, 8, 8, (8, 8, 8)), (8, 8, 8, (8, False)),
        (8, 8),
    ],
    'pretrained_window_sizes': [0, (8, 8, 8)],
    'position_bias': ['log'],
    'tiling': ['even'],
    'attention': ['flash', ('sdpa', 'eager'), ('sdpa', 'eager', 'sdpa', 'fast')],
    'drop_path_rate': [1.0, -0.1],
    'out_indices': [(), (0, 4), (-1,), (2, 0), (1, 1)],
    'frozen_stages': [4, -2],
    'with_cp': [(True, False)],
}  # fmt: skip


@pytest.mark.parametrize(
    ('place', 'value'), [(place, value) for place in REFUSED for value in REFUSED[place]], ids=str
)
def test_what_does_not_fit_is_refused(place, value):
    name, _, word = place.partition(': ')
    with torch.device('meta'), pytest.raises(ValueError, match=word or name):
        SwinTransformerV2(**({'arch': NARROW} | {name: value}))


def test_a_misspelt_arch_is_guessed():
    with pytest.raises(ValueError, match='tiny'):
        SwinTransformerV2('tny')


@pytest.mark.parametrize('name', ['windowsize', 'init_cfg', 'use_checkpoint'])
def test_unknown_setting_is_refused(name):
    with pytest.raises(TypeError, match=name):
        SwinTransformerV2('tiny', **{name: 1})
    with pytest.raises(TypeError):
        SwinTransformerV2('tiny', 8)


def test_set_window_size_refuses_what_does_not_fit():
    model = build()
    with pytest.raises(ValueError, match='window_size'):
        model.set_window_size(0)
    with pytest.raises(ValueError, match='window_size'):
        model.set_window_size((4, 4))
    assert model.window_sizes == ((4, 4),) * 4


def test_forms_of_arch():
    by_name = SwinTransformerV2(NARROW | {'extra_norm_every': 2}, out_indices=(3,))
    arch = Architecture(8, (2, 2, 2, 1), (1, 2, 2, 4), extra_norm_every=2)
    assert by_name.arch == arch
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in NARROW.items()}
    assert SwinTransformerV2(lists, out_indices=[3]).arch == SwinTransformerV2(NARROW).arch
    assert SwinTransformerV2(arch).arch is arch


@pytest.mark.parametrize('num_stages', [1, 2, 3, 5])
def test_other_numbers_of_stages(num_stages):
    arch = {'embed_dim': 8, 'depths': (1,) * num_stages, 'num_heads': (1,) * num_stages}
    model = build(arch=arch, out_indices=tuple(range(num_stages)))
    assert [out.shape[1] for out in model(image())] == [8 * 2**i for i in range(num_stages)]


def test_forms_of_window_size():
    windows = ((4, 4), (3, 5), (2, 2), (7, 7))
    assert build(window_size=[4, [3, 5], 2, 7]).window_sizes == windows
    model = build(window_size=6)
    assert model.window_sizes == model.get_pretrained_window_sizes() == ((6, 6),) * 4
    model = build(window_size=6, pretrained_window_sizes=(4, (3, 5), 2, 7))
    assert model.get_pretrained_window_sizes() == windows
    assert model.pretrained_window_sizes.tolist() == [list(window) for window in windows]
    model = build(window_size=[(3, 5)])
    assert model.window_sizes == ((3, 5),) * 4
    two = SwinTransformerV2(
        Architecture(16, (1, 1), (1, 2)), window_size=[(16, 8)], out_indices=(0, 1)
    )
    assert two.window_sizes == ((16, 8), (16, 8))


# --- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb', 'table'])
def test_set_window_size_equals_building_at_that_window(kind):
    model = build(window_size=4, position_bias=kind)
    before = {name: (p, p.clone()) for name, p in model.named_parameters()}
    small = model(image())
    new = (6, (3, 5), 2, 8)
    model.set_window_size(new)
    for name, p in model.named_parameters():
        assert p is before[name][0]
        assert torch.equal(p, before[name][1])
    other = build(window_size=new, pretrained_window_sizes=4, position_bias=kind)
    large = model(image())
    same(large, other(image()))
    assert differ(small, large)
    model.set_window_size(4)
    same(model(image()), small)


def test_reference_window_matters():
    """Else the tests that carry it along could not fail."""
    assert differ(build()(image()), build(pretrained_window_sizes=8)(image()))


# --- start --------------------------------------------------------------------------------------


def assert_fresh(model: SwinTransformerV2) -> None:
    """Weights as the official code draws them; the arch must be wide enough for statistics."""
    for name, p in model.named_parameters():
        assert p.isfinite().all(), name
        if name.startswith('patch_embed.proj'):
            # Left at torch's own start: uniform within 1 / sqrt(fan-in).
            assert 0.5 / math.sqrt(48) < p.abs().max() <= 1 / math.sqrt(48), name
        elif '.blocks.' in name and ('norm1' in name or 'norm2' in name):
            assert (p == 0).all(), name
        elif 'norm' in name:
            assert (p == (1 if name.endswith('weight') else 0)).all(), name
        elif name.endswith('logit_scale'):
            torch.testing.assert_close(p, torch.full_like(p, math.log(10)))
        elif name.endswith('bias'):
            assert (p == 0).all(), name
        else:
            # Four standard errors of the standard deviation and of the mean.
            error = 4 / math.sqrt(p.numel())
            assert p.std().item() == pytest.approx(0.02, rel=error), name
            assert abs(p.mean().item()) < 0.02 * error, name


@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
def test_start(kind):
    torch.manual_seed(0)
    assert_fresh(SwinTransformerV2(WIDE | {'extra_norm_every': 2}, position_bias=kind))


def test_a_fresh_block_is_the_identity():
    model = SwinTransformerV2(NARROW, window_size=4)
    x = torch.randn(1, 9, 13, 8)
    assert torch.equal(model.layers[0](x), x)


@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
def test_reset_parameters_reaches_everything(kind):
    """A model from the meta device holds garbage; nothing of it may survive."""
    settings = {'window_size': (4, 4, (3, 5), 2), 'position_bias': kind}
    arch = WIDE | {'extra_norm_every': 2}
    with torch.device('meta'):
        model = SwinTransformerV2(arch, **settings)
    model.to_empty(device='cpu')
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(torch.nan)
        model.pretrained_window_sizes.fill_(-1)
    torch.manual_seed(0)
    model.reset_parameters()
    assert_fresh(model)
    other = SwinTransformerV2(arch, **settings)
    assert model.pretrained_window_sizes.tolist() == [[4, 4], [4, 4], [3, 5], [2, 2]]
    torch.manual_seed(0)
    other.reset_parameters()
    same(list(model.state_dict().values()), list(other.state_dict().values()))
    same(model.eval()(image()), other.eval()(image()))


# --- modes and freezing -------------------------------------------------------------------------


def test_train_and_eval_return_the_model():
    model = build(frozen_stages=1)
    assert model.train() is model
    assert model.eval() is model
    block = model.layers[0].blocks[0]
    assert block.attn.train() is block.attn


def frozen_names(model: SwinTransformerV2, last: int) -> set[str]:
    if last < 0:
        return set()
    frozen = ['patch_embed.', *(f'layers.{i}.' for i in range(last)), f'layers.{last}.blocks.']
    frozen += [f'norm{i}.' for i in range(last + 1)]
    return {n for n, _ in model.named_parameters() if n.startswith(tuple(frozen))}


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3])
def test_frozen_stages(frozen_stages):
    model = build(frozen_stages=frozen_stages, drop_path_rate=0.5)
    expected = frozen_names(model, frozen_stages)

    def names_in_mode(training: bool) -> set[str]:
        return {
            f'{name}.{kind}' if name else kind
            for name, module in model.named_modules()
            for kind, _ in module.named_parameters(recurse=False)
            if module.training == training
        }

    for _ in range(2):
        assert {n for n, p in model.named_parameters() if not p.requires_grad} == expected
        assert names_in_mode(training=False) == expected
        drops = [m for m in model.modules() if isinstance(m, DropPath)]
        num_frozen = sum(NARROW['depths'][: frozen_stages + 1])
        assert [drop.training for drop in drops] == [i >= num_frozen for i in range(len(drops))]
        model.eval()
        assert names_in_mode(training=True) == set()
        model.train()
    if frozen_stages < 3:
        assert model.layers[frozen_stages].downsample is None or all(
            p.requires_grad for p in model.layers[frozen_stages].downsample.parameters()
        )


@pytest.mark.parametrize('out_indices', [(0,), (1,), (0, 2), (3,), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_exactly_the_trainable_parameters_get_a_gradient(out_indices, frozen_stages):
    """A distributed wrapper waits for every parameter that requires one."""
    model = build(out_indices=out_indices, frozen_stages=frozen_stages).double()
    outs, full = model(image().double()), build().double()(image().double())
    same(outs, [full[i] for i in out_indices], rtol=1e-9, atol=1e-9)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    norms = {n for n, _ in model.named_parameters() if n.startswith('norm')}
    assert norms == {f'norm{i}.{kind}' for i in out_indices for kind in ('weight', 'bias')}
    if max(out_indices) > frozen_stages:
        sum(out.square().sum() for out in outs).backward()
        assert f'norm{max(out_indices)}.weight' in trainable
    else:
        assert not any(out.requires_grad for out in outs)
        assert trainable == set()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trainable


def test_norm_eval_keeps_batch_statistics():
    for norm_eval in (False, True):
        model = build(norm_eval=norm_eval)
        model.add_module('added', nn.Sequential(nn.BatchNorm2d(4)))
        model.train()
        assert model.training
        assert model.added[0].training is not norm_eval
        assert model.norm0.training


# --- stochastic depth ---------------------------------------------------------------------------


def test_drop_path_rate_rises_linearly():
    model = build(drop_path_rate=0.3)
    rates = [block.drop_path.drop_rate for stage in model.layers for block in stage.blocks]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.3)
    steps = [later - earlier for earlier, later in pairwise(rates)]
    assert steps == pytest.approx([0.05] * 6)
    one = {'embed_dim': 8, 'depths': (1,), 'num_heads': (1,)}
    assert build(arch=one, out_indices=(0,)).layers[0].blocks[0].drop_path.drop_rate == 0


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    drop = DropPath(0.25)
    # Powers of two: the ratio below is exact.
    x = 2.0 ** torch.randint(-3, 4, (4000, 2, 3, 5))
    assert torch.equal(drop.eval()(x), x)
    torch.manual_seed(0)
    ratio = (drop.train()(x) / x).flatten(1)
    assert (ratio == ratio[:, :1]).all()
    kept = ratio[:, 0] > 0
    torch.testing.assert_close(ratio[kept, 0], torch.full((int(kept.sum()),), 4 / 3))
    # Four standard errors.
    assert kept.float().mean().item() == pytest.approx(0.75, abs=4 * math.sqrt(0.1875 / 4000))


def test_drop_path_acts_in_training_only():
    model = build(drop_path_rate=0.9)
    torch.manual_seed(0)
    first, second = model(image()), model(image())
    assert differ(first, second)
    same(model.eval()(image()), model(image()))
    same(model(image()), build()(image()))


# --- activation checkpointing -------------------------------------------------------------------


@pytest.mark.parametrize('with_cp', [True, (True, False, True, False)], ids=str)
@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_checkpointing_changes_no_number(with_cp, drop_path_rate, monkeypatch):
    calls = []
    forward = SwinBlock.forward
    monkeypatch.setattr(
        SwinBlock,
        'forward',
        lambda self, x, grid: calls.append(x.shape[-1]) or forward(self, x, grid),
    )

    def run(with_cp):
        calls.clear()
        model = build(with_cp=with_cp, drop_path_rate=drop_path_rate)
        x = image().requires_grad_()
        torch.manual_seed(0)
        outs = model(x)
        sum(out.square().sum() for out in outs).backward()
        return outs, [x.grad, *(p.grad for p in model.parameters())], sorted(calls)

    outs, grads, plain_calls = run(False)
    cp_outs, cp_grads, cp_calls = run(with_cp)
    same(cp_outs, outs)
    same(cp_grads, grads)
    # And it is at work: the blocks of its stages run twice.
    dims = [dim for dim, depth in zip((8, 16, 32, 64), NARROW['depths'], strict=True)
            for _ in range(depth)]  # fmt: skip
    twice = {8, 32} if isinstance(with_cp, tuple) else {8, 16, 32, 64}
    assert plain_calls == dims
    assert cp_calls == sorted(dims + [dim for dim in dims if dim in twice])


def test_checkpointing_with_frozen_stages():
    plain, with_cp = (build(with_cp=cp, frozen_stages=0) for cp in (False, True))
    for model in (plain, with_cp):
        sum(out.square().sum() for out in model(image())).backward()
    for (name, p), q in zip(plain.named_parameters(), with_cp.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert p.grad is None or torch.equal(p.grad, q.grad), name


@pytest.mark.parametrize('with_cp', [False, True, (True, False, True, False)], ids=str)
@pytest.mark.parametrize(
    'attention', ['sdpa', 'sequential', ['sequential', 'sequential', 'sdpa', 'eager']], ids=str
)
def test_memory_savers_in_any_combination_change_no_number(attention, with_cp):
    def run(**settings):
        # As at the start of training: sharp attention multiplies rounding.
        model = build(**settings).double()
        for stage in model.layers:
            for block in stage.blocks:
                nn.init.constant_(block.attn.logit_scale, math.log(10))
        outs = model(image().double())
        loss = sum(out.square().mean() for out in outs)
        return [*outs, *torch.autograd.grad(loss, list(model.parameters()))]

    same(run(attention=attention, with_cp=with_cp), run(attention='eager'), rtol=1e-7, atol=1e-9)


def test_each_stage_takes_its_own_backend():
    names = ('sequential', 'sdpa', 'eager', 'triton')
    found = [stage.blocks[0].attn.backend for stage in build(attention=names).layers]
    assert found == [BACKENDS[name] for name in names]


# --- saving and loading -------------------------------------------------------------------------


def through_a_file(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb', 'table'])
@pytest.mark.parametrize('wrapped', [False, True], ids=['bare', 'wrapped'])
def test_the_reference_travels_with_the_weights(kind, wrapped):
    first = build(window_size=4, position_bias=kind)
    hops = [first]
    # Twice, at a new window each time: the reference is still that of the first model.
    for seed, window in enumerate((6, (8, 5, (2, 3), 7)), start=1):
        model = build(seed, window_size=window, position_bias=kind)
        source, target = hops[-1], model
        if wrapped:
            source, target = (nn.ModuleDict({'backbone': m}) for m in (source, target))
        target.load_state_dict(through_a_file(source.state_dict()))
        assert model.get_pretrained_window_sizes() == ((4, 4),) * 4
        assert model.pretrained_window_sizes.tolist() == [[4, 4]] * 4
        assert model.window_sizes != first.window_sizes
        hops.append(model)
        first.set_window_size(window)
        same(model(image()), first(image()))


def test_loading_keeps_the_parameters_of_an_optimiser():
    """Even those of learnt tables, whose shape changes."""
    model = build(window_size=6, position_bias='table')
    ids = [id(p) for p in model.parameters()]
    model.load_state_dict(build(1, window_size=4, position_bias='table').state_dict())
    assert [id(p) for p in model.parameters()] == ids
    assert model.layers[0].blocks[0].attn.relative_position_bias_table.shape == (49, 1)
    sum(out.square().sum() for out in model(image())).backward()
    assert all(p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
def test_a_conflict_about_the_reference_is_an_error(kind):
    weights = build(window_size=4, position_bias=kind).state_dict()
    model = build(1, window_size=6, pretrained_window_sizes=8, position_bias=kind)
    for strict in (True, False):
        with pytest.raises(RuntimeError, match='pretrained_window_sizes'):
            model.load_state_dict(weights, strict=strict)
    assert model.get_pretrained_window_sizes() == ((8, 8),) * 4


def test_agreement_about_the_reference_is_none():
    model = build(1, window_size=6, pretrained_window_sizes=4)
    first = build(window_size=4)
    model.load_state_dict(first.state_dict())
    first.set_window_size(6)
    same(model(image()), first(image()))


def test_weights_of_another_architecture_are_refused():
    three = {'embed_dim': 8, 'depths': (2, 2, 2), 'num_heads': (1, 2, 2)}
    weights = build(arch=three, out_indices=(0, 1, 2)).state_dict()
    with pytest.raises(RuntimeError, match='pretrained_window_sizes'):
        build().load_state_dict(weights)


def test_set_pretrained_window_sizes_before_loading():
    model, first = build(1, window_size=6, position_bias='table'), build(position_bias='table')
    weights = first.state_dict()
    del weights['pretrained_window_sizes']
    model.set_pretrained_window_sizes(4)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (['pretrained_window_sizes'], [])
    first.set_window_size(6)
    same(model(image()), first(image()))
    assert model.pretrained_window_sizes.tolist() == [[4, 4]] * 4


def test_loading_into_a_model_from_the_meta_device():
    first = build(window_size=4)
    with torch.device('meta'):
        model = SwinTransformerV2(NARROW, window_size=6, drop_path_rate=0.0)
    model.load_state_dict(first.state_dict(), assign=True)
    first.set_window_size(6)
    same(model(image()), first(image()))


@pytest.mark.parametrize('way', ['deepcopy', 'pickle', 'torch.save'])
@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
def test_copies_of_the_model(way, kind):
    model = build(window_size=6, pretrained_window_sizes=4, frozen_stages=0, position_bias=kind)
    with torch.no_grad():
        expected = model.eval()(image())
    if way == 'deepcopy':
        twin = copy.deepcopy(model)
    elif way == 'pickle':
        twin = pickle.loads(pickle.dumps(model))
    else:
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    with torch.no_grad():
        same(twin(image()), expected)
    # Its weights are its own, and so are its kept bias tables.
    for p in twin.parameters():
        p.data.mul_(1.5)
    with torch.no_grad():
        assert differ(twin.train().eval()(image()), expected)
        same(model(image()), expected)
        same(model.train().eval()(image()), expected)


def test_a_pickle_holds_no_derived_tensors():
    model = build().eval()
    before = len(pickle.dumps(model))
    with torch.no_grad():
        model(image())
    assert len(pickle.dumps(model)) == before


# --- types --------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['log_cpb', 'table'])
@pytest.mark.parametrize(
    # Measured, root mean square: 3e-3 and 2e-2.
    ('dtype', 'tolerance'),
    [(torch.float16, 0.01), (torch.bfloat16, 0.06)],
    ids=str,
)
def test_half_precision_model(kind, dtype, tolerance):
    model = build(position_bias=kind, window_size=6, pretrained_window_sizes=4)
    for name, p in model.named_parameters():
        # As at the start of training: sharp attention multiplies the rounding of its input.
        if name.endswith('logit_scale'):
            nn.init.constant_(p, math.log(10))
    expected = model(image())
    actual = model.to(dtype)(image().to(dtype))
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        assert a.isfinite().all()
        assert (a - e).square().mean() < tolerance**2 * e.square().mean()
    sum(out.float().square().sum() for out in actual).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.pretrained_window_sizes.tolist() == [[4, 4]] * 4
