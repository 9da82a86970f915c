"""tools/checkpoint.py: what it says, what it writes, and what it refuses."""

import json

import oracle
import pytest
import torch
from test_checkpoint_heads import classifier, logits
from test_checkpoint_layouts import build

from swinv2_mm.checkpoint import load_pretrained, save_pretrained
from swinv2_mm.checkpoint.building import model_of
from swinv2_mm.core import SwinTransformerV2


@pytest.fixture
def checkpoint(tool):
    def run(*arguments):
        status, errors = tool('checkpoint', *arguments)
        return status, errors, tool.printed

    return run


@pytest.fixture
def file(tmp_path):
    model = classifier(pretrained_window_sizes=(8, 8, 8, 4))
    oracle.randomise(model, seed=0)
    save_pretrained(model, tmp_path / 'official.pth', layout='official')
    return tmp_path / 'official.pth'


def test_inspect_says_what_a_file_is(checkpoint, file):
    status, errors, text = checkpoint('inspect', file)
    assert status == 0, errors
    for words in ('official', 'custom', '8, 8, 8, 4', 'classes             7', 'log_cpb'):
        assert words in text
    _, _, text = checkpoint('inspect', file, '--json')
    facts = json.loads(text)
    assert facts['depths'] == [2, 1, 3, 2] and facts['parameters'] == sum(
        p.numel() for p in classifier().parameters()
    )
    assert 'layers.0.blocks.0.attn.relative_coords_table' in facts['dropped']


def test_inspect_asks_for_windows_that_nobody_tells(checkpoint, tmp_path):
    save_pretrained(build(), tmp_path / 'a.pth', layout='timm')
    status, errors, _ = checkpoint('inspect', tmp_path / 'a.pth')
    assert status == 1 and '--pretrained-window-sizes' in errors
    for given in (['12', '12', '12', '6'], ['12x9', '12', '12', '6']):
        status, errors, text = checkpoint(
            'inspect', tmp_path / 'a.pth', '--pretrained-window-sizes', *given
        )
        assert status == 0 and ', '.join(given) in text, errors
    status, errors, _ = checkpoint('inspect', tmp_path / 'a.pth', '--pretrained-window-sizes', '0')
    assert status == 2 and 'is no window' in errors


@pytest.mark.parametrize('layout', ['own', 'timm', 'mmpretrain', 'huggingface', 'torchvision'])
def test_convert_and_diff(checkpoint, file, tmp_path, layout):
    out = tmp_path / f'{layout}.safetensors'
    status, errors, text = checkpoint('convert', file, out, '--layout', layout)
    assert status == 0 and f'as {layout}' in text, errors
    assert model_of(out)[1].layout == layout
    status, errors, text = checkpoint('diff', file, out)
    assert status == 0 and 'the same' in text, errors


def test_convert_does_not_write_over_its_source(checkpoint, file):
    before = file.read_bytes()
    status, errors, _ = checkpoint('convert', file, file, '--layout', 'timm')
    assert status == 1 and 'another file' in errors and file.read_bytes() == before


def test_diff_names_what_differs(checkpoint, file, tmp_path):
    model, _ = model_of(file)
    with torch.no_grad():
        model.backbone.layers[1].blocks[0].attn.q_bias[3] += 0.5
    save_pretrained(model, tmp_path / 'b.pth')
    status, errors, text = checkpoint('diff', file, tmp_path / 'b.pth')
    assert status == 1 and 'differ: 1 of' in errors
    assert 'layers.1.blocks.0.attn.q_bias: differs by up to 0.5' in text
    assert checkpoint('diff', file, tmp_path / 'b.pth', '--tolerance', '0.6')[0] == 0
    save_pretrained(build(), tmp_path / 'c.pth')
    status, errors, text = checkpoint('diff', file, tmp_path / 'c.pth')
    assert status == 1 and 'embed_dim: 16 against 8' in text


def test_convert_leaves_nothing_behind_when_it_cannot(checkpoint, tmp_path):
    save_pretrained(build(position_bias='linear_cpb'), tmp_path / 'a.pth')
    status, errors, _ = checkpoint(
        'convert', tmp_path / 'a.pth', tmp_path / 'b.pth', '--layout', 'timm'
    )
    assert status == 1 and 'linear_cpb' in errors and errors.count('\n') == 1
    status, errors, _ = checkpoint(
        'convert', tmp_path / 'a.pth', tmp_path / 'a.pth' / 'b.pth', '--layout', 'own'
    )
    assert status == 1 and errors.count('\n') == 1
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb', 'table'])
@pytest.mark.parametrize('windows', [['6'], ['8', '8', '6', '4x3']])
def test_baked_weights_compute_the_same(checkpoint, tmp_path, kind, windows):
    model = classifier(position_bias=kind, pretrained_window_sizes=(8, 8, 8, 4))
    oracle.randomise(model, seed=0)
    save_pretrained(model, tmp_path / 'a.pth')
    out = tmp_path / 'baked.safetensors'
    status, errors, text = checkpoint('bake', tmp_path / 'a.pth', out, '--window-size', *windows)
    assert status == 0 and 'outputs agree' in text, errors
    fixed, _ = model_of(out)
    assert not any('cpb_mlp' in name for name in fixed.state_dict())
    sizes = [tuple(map(int, (w.split('x') * 2)[:2])) for w in windows * (4 // len(windows))]
    assert fixed.backbone.window_sizes == tuple(sizes)
    model.backbone.set_window_size(sizes)
    x = torch.randn(1, 3, 90, 61, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(logits(fixed, x), logits(model, x), rtol=1e-4, atol=1e-4)
    # A table in the model of a config.
    config = SwinTransformerV2(fixed.backbone.arch, position_bias='table', out_indices=(3,))
    load_pretrained(config, out)


def test_released_names_and_trust_are_known(checkpoint, tmp_path):
    status, errors, _ = checkpoint('inspect', 'swinv2-base-w12-192')
    assert status == 1 and 'did you mean' in errors
    proof = tmp_path / 'proof'

    class Hostile:
        def __reduce__(self):
            return open, (str(proof), 'w')

    path = tmp_path / 'hostile.pth'
    torch.save({'state_dict': build().state_dict(), 'meta': Hostile()}, path)
    status, errors, _ = checkpoint('inspect', path)
    assert status == 1 and '--trust-checkpoint' in errors and not proof.exists()
    assert checkpoint('inspect', path, '--trust-checkpoint')[0] == 0 and proof.exists()
    proof.unlink()
    # Trust ends with the run.
    assert checkpoint('inspect', path)[0] == 1 and not proof.exists()


def test_class_map_is_written_by_name(tool, tmp_path):
    for name in ('n03', 'n01', 'n02'):
        (tmp_path / 'large' / name).mkdir(parents=True)
    (tmp_path / 'small.txt').write_text('n02 n01 n09')
    places = (tmp_path / 'large', tmp_path / 'small.txt', tmp_path / 'map.txt')
    status, error = tool('checkpoint', 'class-map', *places)
    assert status == 1 and 'n09' in error and not (tmp_path / 'map.txt').exists()
    status, error = tool('checkpoint', 'class-map', *places, '--substitute', 'n09=n03')
    assert status == 0, error
    assert (tmp_path / 'map.txt').read_text() == '1\n0\n2\n'
