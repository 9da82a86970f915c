"""The whole model against a derivation that shares nothing with it, in float64."""

import official_simmim
import oracle
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from official_simmim import DEPTHS, EMBED_DIM, HEADS, STRIDE, WINDOWS

import swinv2_mm.models
from projects.simmim.simmim.masks import RandomBlockMask
from projects.simmim.simmim.weights import load_simmim
from swinv2_mm.checkpoint import CheckpointError, load_pretrained
from swinv2_mm.core import SwinTransformerV2

ARCH = {'embed_dim': EMBED_DIM, 'depths': DEPTHS, 'num_heads': HEADS}


def build(**head):
    cfg = dict(
        type='MaskedImageModel',
        data_preprocessor=dict(
            type='SelfSupDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
        ),
        backbone=dict(
            type='SwinV2', arch=ARCH, window_size=WINDOWS, drop_path_rate=0.0, out_indices=(3,)
        ),
        neck=dict(type='SimMIMLinearDecoder', in_channels=8 * EMBED_DIM, encoder_stride=STRIDE),
        head=dict(type='MaskedPixelHead', **head),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg)


def images_and_mask():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)
    hide = RandomBlockMask(input_size=64, mask_patch_size=16, is_fixed=True)
    masks = [hide.transform({'sample_idx': i})['mask'] for i in range(2)]
    return images, torch.stack([torch.from_numpy(mask) for mask in masks])


def encoded(images, mask, params):
    """The official encoder, from the oracle's parts: (B, 3, 64, 64) -> (B, C, 2, 2)."""
    x = oracle.patch_embedding(images, oracle.below(params, 'patch_embed.'))
    for b, y, x_ in mask.nonzero().tolist():
        x = x.clone()
        x[b, y, x_] = params['mask_token'][0, 0]
    for i, depth in enumerate(DEPTHS):
        window = (WINDOWS[i], WINDOWS[i])
        for j in range(depth):
            names = oracle.below(params, f'layers.{i}.blocks.{j}.')
            x = oracle.block(x, names, window=window, reference=window, shifted=j % 2 == 1)
        if i < len(DEPTHS) - 1:
            x = oracle.patch_merging(x, oracle.below(params, f'layers.{i}.downsample.'))
    return oracle.layer_norm(x, oracle.below(params, 'norm.')).permute(0, 3, 1, 2)


def decoded(features, weight, bias):
    """Every feature paints the 32 x 32 pixels below it: (B, C, h, w) -> (B, 3, 32h, 32w)."""
    batch, _, height, width = features.shape
    out = features.new_zeros(batch, 3, STRIDE * height, STRIDE * width)
    for y in range(height):
        for x in range(width):
            values = features[:, :, y, x] @ weight[:, :, 0, 0].t() + bias
            patch = values.reshape(batch, 3, STRIDE, STRIDE)
            out[:, :, STRIDE * y : STRIDE * (y + 1), STRIDE * x : STRIDE * (x + 1)] = patch
    return out


def test_official_weights_give_the_official_output():
    official = official_simmim.weights()
    model = build().double()
    report = load_simmim(model, {'model': official})
    assert report.layout == 'official' and report.pretrained_window_sizes == tuple(
        (w, w) for w in WINDOWS
    )
    images, mask = images_and_mask()
    params = oracle.below(official, 'encoder.')
    with torch.no_grad():
        expected = encoded(images, mask, params)
        found = model.encode(images, mask)
        # Measured: 2e-14.
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        unmasked = model.encode(images, torch.zeros_like(mask))
        assert (unmasked - expected).abs().max() > 0.1
        torch.testing.assert_close(model(images)[0], unmasked)

        painted = decoded(expected, official['decoder.0.weight'], official['decoder.0.bias'])
        torch.testing.assert_close(model.reconstruct(images, mask), painted)
        hidden = torch.kron(mask, torch.ones(4, 4, dtype=mask.dtype)).bool()
        differences = (painted - images).abs().movedim(1, -1)[hidden]
        loss = model.head.loss(model.reconstruct(images, mask), images, mask)
        assert loss.item() == pytest.approx(differences.mean().item(), rel=1e-8)


def test_mask_token_learns_and_masked_pixels_do_not_leak():
    model = build()
    oracle.randomise(model, seed=0)
    model.double()
    images, mask = images_and_mask()
    images.requires_grad_(True)
    model.encode(images, mask).square().sum().backward()
    hidden = model.head.in_pixels(mask).bool()
    assert (images.grad.movedim(1, -1)[hidden] == 0).all()
    assert (images.grad.movedim(1, -1)[~hidden] != 0).any()
    assert (model.mask_token.grad != 0).all()


@pytest.mark.parametrize('layout', ['official', 'own'])
def test_encoder_is_read_by_load_pretrained(layout):
    """What fine-tuning, detection and segmentation start from."""
    model = build().double()
    load_simmim(model, official_simmim.weights())
    source = {
        'official': {'model': official_simmim.weights(), 'epoch': 799},
        'own': {'state_dict': model.state_dict(), 'meta': {'epoch': 80}},
    }[layout]
    # All four outputs, another window: a dense task.
    other = SwinTransformerV2(ARCH, window_size=8).double()
    report = load_pretrained(other, source)
    assert report.layout == layout and report.pretrained_window_sizes[0] == (4, 4)
    assert set(report.missing) == {
        f'norm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')
    }
    dropped = 'encoder.mask_token' if layout == 'official' else 'mask_token'
    assert dropped in report.dropped
    for name, value in model.backbone.named_parameters():
        torch.testing.assert_close(other.get_parameter(name), value, rtol=0, atol=0)


def test_own_checkpoint_is_read_whole():
    model, other = build(), build()
    oracle.randomise(model, seed=0)
    load_simmim(other, {'state_dict': model.state_dict()})
    for (name, value), again in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, again), name


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda w: w.pop('decoder.0.bias'), 'no tensors called decoder.0.bias'),
        (lambda w: w.update({'decoder.0.bias': torch.ones(3)}), 'has the shape'),
        (lambda w: w.pop('encoder.mask_token'), 'no masked-image model'),
        (lambda w: w.pop('encoder.norm.bias'), 'lack'),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change, message):
    model = build().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = official_simmim.weights()
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        load_simmim(model, weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_model_is_registered_for_every_scope():
    assert swinv2_mm.models.SwinV2 is MODELS.get('SwinV2')
    assert MODELS.get('MaskedImageModel') is type(build())
