"""Classifiers: a peer's logits, through our files and back into the peer."""

import json
import math

import oracle
import pytest
import safetensors.torch
import torch
from test_checkpoint_layouts import PEER_ARCH, assert_refused
from torch import nn

from swinv2_mm.checkpoint import CheckpointError, load_pretrained, save_pretrained
from swinv2_mm.checkpoint.building import LoadedModel, model_of
from swinv2_mm.checkpoint.class_map import IMAGENET_22K_TO_1K, class_folders, match_class_names
from swinv2_mm.core import SwinTransformerV2

CLASSES = 7
WINDOWS = (8, 8, 8, 4)


def classifier(num_classes=CLASSES, **settings):
    settings = {'arch': PEER_ARCH, 'window_size': 8, 'out_indices': (3,), **settings}
    backbone = SwinTransformerV2(**settings)
    return LoadedModel(backbone, head=nn.Linear(backbone.out_channels[-1], num_classes)).eval()


def timm_peer():
    from timm.models.swin_transformer_v2 import SwinTransformerV2 as Peer

    return Peer(img_size=128, window_size=8, num_classes=CLASSES, **PEER_ARCH)


def huggingface_peer():
    from transformers import Swinv2Config, Swinv2ForImageClassification

    config = Swinv2Config(image_size=128, window_size=8, num_labels=CLASSES, **PEER_ARCH)
    return Swinv2ForImageClassification(config)


def torchvision_peer():
    from torchvision.models import swin_transformer as tv

    def block(dim, num_heads, *, window_size, shift_size, **settings):
        # torchvision does not clip the window of 8 to the last map of 4.
        side = WINDOWS[int(math.log2(dim // PEER_ARCH['embed_dim']))]
        shift = side // 2 if any(shift_size) else 0
        return tv.SwinTransformerBlockV2(
            dim, num_heads, window_size=[side] * 2, shift_size=[shift] * 2, **settings
        )

    return tv.SwinTransformer(
        [4, 4],
        PEER_ARCH['embed_dim'],
        list(PEER_ARCH['depths']),
        list(PEER_ARCH['num_heads']),
        [8, 8],
        num_classes=CLASSES,
        block=block,
        downsample_layer=tv.PatchMergingV2,
    )


def mmpretrain_peer():
    from mmpretrain.models import ImageClassifier

    return ImageClassifier(
        backbone={
            'type': 'SwinTransformerV2',
            'arch': {
                'embed_dims': PEER_ARCH['embed_dim'],
                'depths': list(PEER_ARCH['depths']),
                'num_heads': list(PEER_ARCH['num_heads']),
                'extra_norm_every_n_blocks': 0,
            },
            'img_size': 128,
            'window_size': list(WINDOWS),
        },
        neck={'type': 'GlobalAveragePooling'},
        head={'type': 'LinearClsHead', 'num_classes': CLASSES, 'in_channels': 128},
    )


PEERS = {
    'timm': timm_peer,
    'huggingface': huggingface_peer,
    'torchvision': torchvision_peer,
    'mmpretrain': mmpretrain_peer,
}


def logits(model, x):
    with torch.no_grad():
        out = model(x)
    return getattr(out, 'logits', out)


@pytest.mark.parametrize('layout', PEERS)
def test_logits_survive_the_way_there_and_back(layout, tmp_path):
    peer = PEERS[layout]().eval()
    oracle.randomise(peer, seed=0)
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    expected = logits(peer, x)
    assert expected.shape == (2, CLASSES)

    ours = classifier(pretrained_window_sizes=WINDOWS)
    report = load_pretrained(ours, peer.state_dict())
    assert report.layout == layout and not report.missing
    assert {'head.weight', 'head.bias'} <= set(report.loaded)
    torch.testing.assert_close(logits(ours, x), expected, rtol=1e-4, atol=1e-4)

    # What is written has the windows of the model; those of the peer are clipped to its maps.
    ours.backbone.set_window_size(WINDOWS)
    path = tmp_path / 'written.safetensors'
    assert not save_pretrained(ours, path, layout=layout)
    again = PEERS[layout]()
    oracle.randomise(again, seed=5)
    outcome = again.load_state_dict(safetensors.torch.load_file(path), strict=False)
    assert not outcome.unexpected_keys
    # Buffers that follow from the window; mmpretrain drops even those that the file has.
    assert all('.relative_' in name for name in outcome.missing_keys)
    # Its own coordinates are computed in float32, those of our files in float64.
    torch.testing.assert_close(logits(again.eval(), x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('num_classes', [None, CLASSES])
def test_hugging_face_reads_the_folder_itself(tmp_path, num_classes):
    from transformers import Swinv2ForImageClassification, Swinv2Model

    ours = classifier(window_size=WINDOWS)
    oracle.randomise(ours, seed=0)
    save_pretrained(ours if num_classes else ours.backbone, tmp_path / 'm', layout='huggingface')
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    if num_classes:
        peer = Swinv2ForImageClassification.from_pretrained(tmp_path / 'm').eval()
        torch.testing.assert_close(logits(peer, x), logits(ours, x), rtol=1e-4, atol=1e-4)
    else:
        peer = Swinv2Model.from_pretrained(tmp_path / 'm').eval()
        with torch.no_grad():
            pooled, expected = peer(x).pooler_output, ours.backbone(x)[-1].mean((2, 3))
        torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-4)
    # And back: the windows come from its config.json.
    peer.save_pretrained(tmp_path / 'again')
    model, report = model_of(tmp_path / 'again')
    assert report.pretrained_window_sizes == tuple((side, side) for side in WINDOWS)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, ours.backbone.state_dict()[name]), name


@pytest.mark.parametrize('windows', [(8, 8, 4, 8), (8, 8, 8, (8, 4))])
def test_windows_that_hugging_face_cannot_have_are_refused(tmp_path, windows):
    with pytest.raises(ValueError, match='huggingface'):
        save_pretrained(classifier(window_size=windows), tmp_path / 'm', layout='huggingface')
    assert not (tmp_path / 'm').exists()


def test_a_config_of_0_means_the_window_clipped_to_the_map(tmp_path):
    save_pretrained(classifier(window_size=WINDOWS), tmp_path, layout='huggingface')
    path = tmp_path / 'config.json'
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {'pretrained_window_sizes': [0, 0, 0, 0]}))
    weights = safetensors.torch.load_file(tmp_path / 'model.safetensors')
    safetensors.torch.save_file(weights, tmp_path / 'model.safetensors')
    sizes = tuple((side, side) for side in WINDOWS)
    assert model_of(tmp_path)[1].pretrained_window_sizes == sizes
    path.write_text('{"model_type": "swinv2", "image_size": "big"}')
    with pytest.raises(CheckpointError, match='windows'):
        model_of(tmp_path)


# --- heads that do not fit ----------------------------------------------------------------------


def test_another_number_of_classes_is_dropped_and_said():
    source, model = classifier(), classifier(num_classes=3)
    before = model.head.weight.clone()
    report = load_pretrained(model, source.state_dict())
    assert torch.equal(model.head.weight, before)
    assert '7 classes' in report.dropped['head.weight']
    assert 'keeps its start' in report.missing['head.bias']


def test_a_class_map_chooses_from_a_larger_head(tmp_path):
    source, model = classifier(num_classes=9), classifier(num_classes=4)
    path = tmp_path / 'map.txt'
    path.write_text('8\n0\n3\n3\n')
    report = load_pretrained(model, source.state_dict(), class_map=path)
    for leaf in ('weight', 'bias'):
        expected = getattr(source.head, leaf)[[8, 0, 3, 3]]
        assert torch.equal(getattr(model.head, leaf), expected)
    assert report.adapted['head.weight'] == f'4 of 9 classes, by {path}'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('0\n1\n', '2 entries'),
        ('0\n1\n2\n9\n', "entry 4 of the class map .*'9', is not a class"),
        ('0\n1\n-1\n2\n', "'-1', is not a class"),
        ('a b c d', "entry 1 of the class map .*'a', is not a class"),
        (None, 'class map'),
    ],
)
def test_wrong_class_maps_are_refused(tmp_path, text, words):
    path = tmp_path / 'map.txt'
    if text is not None:
        path.write_text(text)
    model = classifier(num_classes=4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(model, classifier(num_classes=9).state_dict(), class_map=path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('is_named', [True, False])
def test_a_released_head_of_imagenet_22k_brings_its_map(tmp_path, is_named):
    windows = (12, 12, 12, 6)
    source = classifier(num_classes=21841, window_size=windows)
    model = classifier(num_classes=1000, window_size=windows)
    path = tmp_path / ('swinv2_base_patch4_window12_192_22k.pth' if is_named else 'own.pth')
    save_pretrained(source, path, layout='official')
    before = model.head.weight.clone()
    report = load_pretrained(model, path)
    rows = torch.tensor([int(line) for line in IMAGENET_22K_TO_1K.read_text().split()])
    # Two of the official figures: its first class, and the one that breaks the order.
    assert rows[0] == 359 and rows[850] == 5564 and rows.max() < 21841 and len(rows) == 1000
    if is_named:
        assert torch.equal(model.head.weight, source.head.weight[rows])
        assert torch.equal(model.head.bias, source.head.bias[rows])
        assert '1000 of 21841' in report.adapted['head.weight']
    else:
        assert torch.equal(model.head.weight, before) and 'head.weight' in report.missing
        load_pretrained(model, path, class_map='imagenet22k-to-1k')
        assert torch.equal(model.head.weight, source.head.weight[rows])


def test_a_class_map_is_built_from_the_names_of_folders(tmp_path):
    for name in ('n03', 'n01', 'n02', 'n10'):
        (tmp_path / 'large' / name).mkdir(parents=True)
    (tmp_path / 'small.txt').write_text('n10\nn01\n')
    known, wanted = class_folders(tmp_path / 'large'), class_folders(tmp_path / 'small.txt')
    assert known == ['n01', 'n02', 'n03', 'n10']
    assert match_class_names(known, wanted) == [3, 0]
    with pytest.raises(CheckpointError, match='n04'):
        match_class_names(known, ['n04'])
    assert match_class_names(known, ['n04'], substitutes={'n04': 'n02'}) == [1]
    for bad in ('', 'n1 n1'):
        (tmp_path / 'small.txt').write_text(bad)
        with pytest.raises(CheckpointError, match='class names'):
            class_folders(tmp_path / 'small.txt')
    with pytest.raises(CheckpointError, match='class names'):
        class_folders(tmp_path / 'absent')


def test_a_head_with_nan_or_without_bias_is_refused():
    weights = classifier().state_dict()
    model = classifier()
    weights['head.bias'] = torch.full((CLASSES,), torch.nan)
    with pytest.raises(CheckpointError, match=r'head\.bias'):
        load_pretrained(model, weights)
    del weights['head.bias']
    with pytest.raises(CheckpointError, match='bias'):
        load_pretrained(model, weights)
    with pytest.raises(ValueError, match='no linear head'):
        load_pretrained(model.backbone, weights, class_map='map.txt')
    # A backbone alone does not care.
    assert 'head.weight' in load_pretrained(model.backbone, weights).dropped


# --- other stems --------------------------------------------------------------------------------


def stem_of(**settings):
    model = SwinTransformerV2(PEER_ARCH, window_size=8, **settings).eval()
    oracle.randomise(model, seed=0)
    return model


@pytest.mark.parametrize('channels', [1, 2, 4, 6, 7])
def test_equal_channels_give_the_old_tokens(channels):
    old, new = stem_of(), stem_of(in_channels=channels)
    report = load_pretrained(new, old.state_dict())
    assert f'{channels} input channels' in report.adapted['patch_embed.proj.weight']
    grey = torch.randn(1, 1, 32, 48, generator=torch.Generator().manual_seed(1))
    expected = old.patch_embed(grey.expand(-1, 3, -1, -1))
    if channels == 2:
        # The third is lost: only its share is made up for.
        weight = old.patch_embed.proj.weight[:, :2] * 1.5
        assert torch.equal(new.patch_embed.proj.weight, weight)
    else:
        got = new.patch_embed(grey.expand(-1, channels, -1, -1))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('patch', [2, 6, 8])
def test_enlarged_images_give_the_old_tokens(patch):
    old, new = stem_of(), stem_of(patch_size_px=patch)
    report = load_pretrained(new, old.state_dict())
    assert f'{patch} pixels' in report.adapted['patch_embed.proj.weight']
    # An image that is as smooth within a patch as the smaller of the two sizes can tell.
    coarse = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def patches(side):
        cut = coarse.unfold(2, 2, 2).unfold(3, 2, 2)
        cut = cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        cut = nn.functional.interpolate(cut, size=(side, side), mode='bilinear', antialias=True)
        return cut

    x, y = patches(4), patches(patch)
    expected = old.patch_embed.proj(x).flatten(1)
    got = new.patch_embed.proj(y).flatten(1)
    if patch > 4:
        # Exact where the larger patch is the smaller one resized.
        y = nn.functional.interpolate(x, size=(patch, patch), mode='bilinear', antialias=True)
        got = new.patch_embed.proj(y).flatten(1)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    else:
        correlation = torch.corrcoef(torch.stack((got.flatten(), expected.flatten())))[0, 1]
        assert correlation > 0.9


def test_stems_of_another_width_are_still_refused():
    wide = SwinTransformerV2(PEER_ARCH | {'embed_dim': 32}, window_size=8, in_channels=1)
    assert_refused(stem_of(), wide.state_dict(), 'embed_dim 32')
