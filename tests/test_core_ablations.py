"""Order of norms and similarity (paper tables 6 and 7), held to definitions in float64."""

import math

import oracle
import pytest
import torch

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.attention import WindowAttention, resolve_backend
from swinv2_mm.core.blocks import SwinBlock
from swinv2_mm.core.window_partition import window_grid

WINDOW, HEADS, DIM = (3, 3), 2, 8


def block(
    *, shifted=False, bias='log_cpb', window=WINDOW, dim=DIM, similarity='cosine', **settings
):
    attention = WindowAttention(
        dim,
        num_heads=HEADS,
        position_bias=bias,
        pretrained_window_size=window,
        backend=resolve_backend('auto'),
        similarity=similarity,
    )
    found = SwinBlock(
        attention, dim=dim, shifted=shifted, drop_path_rate=0.0, with_extra_norm=False, **settings
    )
    oracle.randomise(found, seed=0)
    return found.double().eval()


def image(*size, dim=DIM):
    return torch.randn(2, *size, dim, generator=torch.Generator().manual_seed(1)).double()


def run(module, x, *, window=WINDOW):
    return module(
        x, window_grid(tuple(x.shape[1:3]), window=window, shifted=module.shifted, tiling='fixed')
    )


@pytest.mark.parametrize('size', [(3, 3), (7, 5)], ids=str)
@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('order', ['res_post', 'pre', 'sandwich'])
def test_orders_of_norms_are_their_definitions(order, shifted, size):
    module, x = block(shifted=shifted, norm_order=order), image(*size)
    params = dict(module.named_parameters())

    def norm(y, name):
        return oracle.layer_norm(y, oracle.below(params, f'{name}.'))

    def attend(y):
        branch = oracle.below(params, 'attn.')
        return oracle.attention(y, branch, window=WINDOW, reference=WINDOW, shifted=shifted)

    def feed(y):
        return oracle.mlp(y, oracle.below(params, 'mlp.'))

    if order == 'res_post':
        expected = x + norm(attend(x), 'norm1')
        expected = expected + norm(feed(expected), 'norm2')
    elif order == 'pre':
        expected = x + attend(norm(x, 'norm1'))
        expected = expected + feed(norm(expected, 'norm2'))
    else:
        expected = x + norm(attend(norm(x, 'norm1_in')), 'norm1')
        expected = expected + norm(feed(norm(expected, 'norm2_in')), 'norm2')
    torch.testing.assert_close(run(module, x), expected, rtol=1e-9, atol=1e-9)


def test_dot_product_is_its_definition():
    module, x = block(similarity='dot', bias='table'), image(3, 3)
    attn = module.attn
    qkv = x.flatten(1, 2) @ attn.qkv.weight.t()
    qkv = qkv + torch.cat((attn.q_bias, torch.zeros(DIM), attn.v_bias))
    q, k, v = qkv.reshape(2, 9, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    places = [(y, z) for y in range(3) for z in range(3)]
    offsets = torch.tensor([[5 * (a - c + 2) + b - d + 2 for c, d in places] for a, b in places])
    bias = attn.relative_position_bias_table[offsets].permute(2, 0, 1)
    logits = q @ k.transpose(-2, -1) / math.sqrt(DIM // HEADS) + bias
    expected = (logits.softmax(-1) @ v).transpose(1, 2).reshape(2, 3, 3, DIM)
    expected = expected @ attn.proj.weight.t() + attn.proj.bias
    grid = window_grid((3, 3), window=WINDOW, shifted=False, tiling='fixed')
    torch.testing.assert_close(attn(x, grid), expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match='cosine'):
        attn.token_weights(x, grid, token=(0, 0))


@pytest.mark.parametrize('shifted', [False, True])
def test_block_of_v1_is_that_of_torchvision(shifted):
    from torchvision.models.swin_transformer import SwinTransformerBlock

    window = (4, 4)
    module = block(similarity='dot', bias='table', norm_order='pre', shifted=shifted, window=window)
    peer = SwinTransformerBlock(DIM, HEADS, [4, 4], [2, 2] if shifted else [0, 0]).double().eval()
    peer.norm1.load_state_dict(module.norm1.state_dict())
    peer.norm2.load_state_dict(module.norm2.state_dict())
    ours = module.attn
    with torch.no_grad():
        peer.attn.qkv.weight.copy_(ours.qkv.weight)
        peer.attn.qkv.bias.copy_(torch.cat((ours.q_bias, torch.zeros(DIM), ours.v_bias)))
        peer.attn.relative_position_bias_table.copy_(ours.relative_position_bias_table)
        peer.attn.proj.load_state_dict(ours.proj.state_dict())
        peer.mlp[0].load_state_dict(module.mlp.fc1.state_dict())
        peer.mlp[3].load_state_dict(module.mlp.fc2.state_dict())
        x = image(8, 12)
        torch.testing.assert_close(run(module, x, window=window), peer(x), rtol=1e-9, atol=1e-9)


ARCH = {'embed_dim': 8, 'depths': (2, 2), 'num_heads': (1, 2)}


@pytest.mark.parametrize('similarity', ['cosine', 'dot'])
@pytest.mark.parametrize('order', ['res_post', 'pre', 'sandwich'])
def test_backbones_of_the_ablations_learn(order, similarity):
    model = SwinTransformerV2(
        ARCH, window_size=4, out_indices=(1,), norm_order=order, similarity=similarity
    )
    assert 'attention: ' in model.describe_attention()
    model(torch.randn(2, 3, 48, 40))[0].square().sum().backward()
    moved = [p for p in model.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    # Where a block starts as the identity, its norms alone move at first.
    assert moved and (order != 'pre' or len(moved) > 0.9 * len(list(model.parameters())))
    names = {name for name, _ in model.named_parameters()}
    assert any('logit_scale' in name for name in names) == (similarity == 'cosine')
    assert any('norm1_in' in name for name in names) == (order == 'sandwich')


def test_the_default_has_the_parameters_it_had():
    default = SwinTransformerV2(ARCH, window_size=4, out_indices=(1,)).state_dict()
    explicit = SwinTransformerV2(
        ARCH, window_size=4, out_indices=(1,), norm_order='res_post', similarity='cosine'
    ).state_dict()
    assert default.keys() == explicit.keys()
    assert not any('_in.' in name for name in default)
    for bad in ({'norm_order': 'post'}, {'similarity': 'cos'}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SwinTransformerV2(ARCH, window_size=4, **bad)
    with pytest.raises(ValueError, match='attention'):
        SwinTransformerV2(ARCH, window_size=4, similarity='dot', attention='eager')
