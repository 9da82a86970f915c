"""A converted model says what it is: windows, image size, names of its classes."""

import json

import pytest
import torch
from safetensors import safe_open
from test_tools import CLASSIFIER, SHORT, TINY

import swinv2_mm.cli
from swinv2_mm.analysis.saved_facts import SavedFacts, saved_facts
from swinv2_mm.checkpoint.building import model_of

SIDE_PX = 64


@pytest.fixture(scope='module')
def trained(data_root, tmp_path_factory):
    """A checkpoint that was tuned at window 16 from weights of window 8, and its class names."""
    folder = tmp_path_factory.mktemp('run')
    pipeline = (
        f'dict(type=LoadCheckedImage),dict(type=Resize,scale={SIDE_PX}),dict(type=PackInputs)'
    )
    options = [*SHORT, *TINY, 'train_dataloader.persistent_workers=False']
    options += ['train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1']
    options += ['model.backbone.window_size=16', 'model.backbone.pretrained_window_sizes=8']
    options += [f'test_dataloader.dataset.pipeline=[{pipeline}]']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWINV2_DATA', str(data_root))
        runner = swinv2_mm.cli.train(CLASSIFIER, work_dir=folder, options=options)
    return folder / 'iter_1.pth', list(runner.train_dataloader.dataset.metainfo['classes'])


@pytest.fixture
def expected(trained):
    """Logits of an image at the windows that were trained."""
    model, _ = model_of(trained[0])
    model.backbone.set_window_size(16)
    image = torch.randn(1, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return image, model(image)


def convert(tool, file, out, layout):
    status, errors = tool('checkpoint', 'convert', file, out, '--layout', layout)
    assert status == 0, errors
    return tool.printed


def test_huggingface_folder(trained, expected, tool, tmp_path):
    from transformers import Swinv2ForImageClassification

    file, names = trained
    convert(tool, file, tmp_path / 'out', 'huggingface')
    config = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert (config['window_size'], config['image_size']) == (16, SIDE_PX)
    assert config['pretrained_window_sizes'] == [8, 8, 8, 8]
    assert list(config['id2label'].values()) == names
    peer = Swinv2ForImageClassification.from_pretrained(tmp_path / 'out').eval()
    image, logits = expected
    with torch.inference_mode():
        assert torch.allclose(peer(image).logits, logits, atol=1e-4)
    assert peer.config.id2label[3] == names[3]


def test_timm_folder(trained, expected, tool, tmp_path):
    import timm

    file, names = trained
    convert(tool, file, tmp_path / 'out', 'timm')
    peer = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    image, logits = expected
    with torch.inference_mode():
        assert torch.allclose(peer(image), logits, atol=1e-4)
    assert peer.pretrained_cfg['label_names'] == names


@pytest.mark.parametrize('layout', ['own', 'official', 'timm', 'mmpretrain', 'torchvision'])
def test_every_layout_says_it(layout, trained, tool, tmp_path):
    file, names = trained
    out = tmp_path / 'out.safetensors'
    text = convert(tool, file, out, layout)
    assert 'windows 16, 8, 4, 2' in text and '64 px' in text and ', '.join(names) in text
    with safe_open(out, 'pt') as content:
        notes = content.metadata()
        assert json.loads(notes['classes']) == names and json.loads(notes['image_size']) == SIDE_PX
        if layout == 'official':
            table = content.get_tensor('layers.0.blocks.0.attn.relative_coords_table')
            assert table.shape == (1, 31, 31, 2)
    # What the bias network was trained at is kept beside it.
    assert model_of(out)[1].pretrained_window_sizes == ((8, 8),) * 4


def test_facts_of_odd_files():
    for content in (None, {}, {'meta': 3}, {'meta': {'cfg': 5, 'dataset_meta': {'classes': 3}}}):
        assert saved_facts(content) == SavedFacts()
    for window in ('"8"', '-8', '[8, 0]', '9' * 4000, '9' * 9000, 'True', '[]'):
        text = f'model = dict(backbone=dict(window_size={window}))'
        assert saved_facts({'meta': {'cfg': text}}).window_size is None
