"""The extra layer of HTC++ against the definition of a block whose window is the map."""

import oracle
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

import swinv2_mm.models  # noqa: F401
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.engine import SwinV2OptimWrapperConstructor
from swinv2_mm.models import global_attention

pytest.importorskip('mmdet.models')
FPN = {'type': 'mmdet.FPN', 'out_channels': 8, 'num_outs': 3}
CHANNELS = (8, 12)


def build(**changes):
    cfg = {'in_channels': CHANNELS, 'neck': FPN, 'head_dim': 4, 'reference_window': 5}
    return MODELS.build({'type': 'GlobalAttentionNeck', **cfg, **changes})


def randomised(seed=0, **changes):
    neck = build(**changes).double()
    oracle.randomise(neck, seed=seed)
    return neck


def maps(size, channels=CHANNELS, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    sizes = [(2 * size[0], 2 * size[1]), size]
    return tuple(
        torch.randn(batch, c, *hw, generator=generator, dtype=dtype)
        for c, hw in zip(channels, sizes, strict=True)
    )


def attended(neck, inputs):
    """The maps that the inner neck is given."""
    seen = []
    handle = neck.neck.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    neck(inputs)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize('size', [(5, 5), (3, 7), (1, 4), (1, 1), (6, 2)], ids=str)
@pytest.mark.parametrize('attention', ['eager', 'sdpa'])
def test_equals_a_block_with_one_window(size, attention):
    neck = randomised(attention=attention, reference_window=(5, 4))
    inputs = maps(size)
    x = inputs[-1].requires_grad_()
    out = attended(neck, (inputs[0], x))
    assert out[0] is inputs[0]

    params = {k: v.detach().requires_grad_() for k, v in neck.block.named_parameters()}
    y = inputs[-1].detach().clone().requires_grad_()
    expected = oracle.block(
        y.permute(0, 2, 3, 1), params, window=size, reference=(5, 4), shifted=False
    ).permute(0, 3, 1, 2)
    torch.testing.assert_close(out[-1], expected, rtol=1e-9, atol=1e-10)

    weights = torch.randn(expected.shape, dtype=torch.float64)
    (out[-1] * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-7, atol=1e-9)
    for name, p in neck.block.named_parameters():
        torch.testing.assert_close(p.grad, params[name].grad, rtol=1e-7, atol=1e-9, msg=name)


def test_every_token_meets_every_token():
    neck = randomised()
    inputs = maps((6, 9), batch=1)
    x = inputs[-1].requires_grad_()
    attended(neck, (inputs[0], x))[-1][0, :, 0, 0].sum().backward()
    assert x.grad[0].abs().sum(0).min() > 0


@pytest.mark.parametrize('heads_at_once', [1, 2])
@pytest.mark.parametrize('with_cp', [False, True])
def test_head_groups_change_nothing(heads_at_once, with_cp, monkeypatch):
    """Three heads; 2 at once leave a last group of another size."""
    size = (5, 7)

    def run():
        neck = randomised(with_cp=with_cp)
        inputs = maps(size)
        x = inputs[-1].requires_grad_()
        out = neck((inputs[0], x))
        sum((o**2).sum() for o in out).backward()
        return [*out, x.grad, *(p.grad for p in neck.parameters())]

    whole = run()
    calls = []
    logits_per_head = 2 * (size[0] * size[1]) ** 2
    monkeypatch.setattr(global_attention, '_MAX_LOGITS', heads_at_once * logits_per_head)
    real = global_attention.checkpoint
    monkeypatch.setattr(
        global_attention, 'checkpoint', lambda *a, **k: calls.append(a) or real(*a, **k)
    )
    grouped = run()
    # The outer recomputation is a call of its own, and runs the groups a second time.
    groups = -(-3 // heads_at_once)
    assert len(calls) == (1 + 2 * groups if with_cp else groups)
    for one, other in zip(whole, grouped, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_large_map_runs_in_groups(monkeypatch):
    """48 x 48 tokens, as at 1536 px, in training."""
    monkeypatch.setattr(global_attention, '_MAX_LOGITS', 2304**2)
    sizes = []
    real = global_attention.resolve_backend('sdpa')

    def counted(qkv, *args):
        sizes.append(qkv.shape)
        return real(qkv, *args)

    monkeypatch.setattr(global_attention, 'resolve_backend', lambda name: counted)
    neck = build(in_channels=(8, 8), reference_window=48)
    inputs = maps((48, 48), channels=(8, 8), batch=1, dtype=torch.float32)
    x = inputs[-1].requires_grad_()
    sum(o.sum() for o in neck((inputs[0], x))).backward()
    # Two heads, each computed and recomputed.
    assert sizes == [(1, 48, 48, 12)] * 4
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


def test_starts_as_the_identity():
    neck = build()
    for p in neck.block.parameters():
        torch.nn.init.normal_(p)
    neck.init_weights()
    inputs = maps((4, 5), dtype=torch.float32)
    assert torch.equal(attended(neck, inputs)[-1], inputs[-1])
    assert neck.block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.2)
    # FPN's own initialisation ran as well: Xavier, zero biases.
    assert not neck.neck.lateral_convs[0].conv.bias.any()
    # The first step moves it away.
    sum((o**2).sum() for o in neck(inputs)).backward()
    assert neck.block.norm1.weight.grad.abs().sum() > 0


def test_weights_bring_the_window_they_were_trained_at():
    source, target = randomised(reference_window=(7, 6)), build(reference_window=12).double()
    target.load_state_dict(source.state_dict())
    inputs = maps((4, 5))
    for one, other in zip(source(inputs), target(inputs), strict=True):
        assert torch.equal(one, other)
    assert target.reference_window.tolist() == [7, 6]
    other = build(reference_window=12).double()
    other.block.load_state_dict(source.block.state_dict())
    assert not torch.allclose(attended(other, inputs)[-1], attended(source, inputs)[-1])


def test_learns_at_the_rate_of_the_heads_without_decay_of_its_bias():
    model = torch.nn.Module()
    arch = {'embed_dim': 4, 'depths': (1, 1), 'num_heads': (1, 2)}
    model.backbone = SwinTransformerV2(arch, out_indices=(0, 1))
    model.neck = build(in_channels=(4, 8))
    constructor = SwinV2OptimWrapperConstructor(
        {'optimizer': {'type': 'AdamW', 'lr': 1.0, 'weight_decay': 0.05}},
        {'backbone_lr_mult': 0.1},
    )
    rules = {
        id(p): (group['lr'], group['weight_decay'])
        for group in constructor.param_groups(model)
        for p in group['params']
    }
    block = model.neck.block
    assert rules[id(block.attn.qkv.weight)] == (1.0, 0.05)
    assert rules[id(block.attn.cpb_mlp[0].weight)] == (1.0, 0.0)
    assert rules[id(block.attn.logit_scale)] == (1.0, 0.0)
    assert rules[id(model.backbone.layers[0].blocks[0].attn.qkv.weight)] == (0.1, 0.05)


def test_found_from_mmdet():
    from mmdet.registry import MODELS as DETECTION

    with DefaultScope.overwrite_default_scope('mmdet'):
        neck = DETECTION.build(
            {'type': 'GlobalAttentionNeck', 'in_channels': [8, 32], 'neck': {**FPN, 'type': 'FPN'}}
        )
    assert [tuple(o.shape) for o in neck(maps((3, 4), (8, 32), dtype=torch.float32))] == [
        (2, 8, 6, 8), (2, 8, 3, 4), (2, 8, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'head_dim': 5}, 'head_dim 5'),
        ({'reference_window': 0}, 'reference_window'),
        ({'reference_window': (4, 4, 4)}, 'reference_window'),
        ({'neck': {**FPN, 'in_channels': [8, 12]}}, 'in_channels goes to GlobalAttentionNeck'),
        ({'attention': 'fast'}, "unknown attention 'fast'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
