"""What ``load_pretrained`` and ``save_pretrained`` promise: layouts, files, windows, mistakes."""

import copy
import json
import os
import pickle
import subprocess
import sys
import types
from collections import OrderedDict

import oracle
import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from swinv2_mm.checkpoint import (
    CheckpointError,
    LoadReport,
    layouts,
    load_pretrained,
    save_pretrained,
)
from swinv2_mm.checkpoint.architecture import architecture_of
from swinv2_mm.checkpoint.pretrained_windows import window_of_coords
from swinv2_mm.checkpoint.rules import Template, translate
from swinv2_mm.checkpoint.saving import to_layout
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.position_bias import relative_coords
from swinv2_mm.core.window_partition import window_grid
from swinv2_mm.errors import UserError

NARROW = {'embed_dim': 8, 'depths': (2, 1, 3, 2), 'num_heads': (1, 2, 2, 4)}
WINDOWS = [
    ((8, 8), (8, 8), (8, 8), (8, 8)),
    ((16, 16), (16, 16), (16, 16), (8, 8)),
    ((12, 12), (12, 12), (12, 12), (6, 6)),
    ((7, 14), (7, 14), (5, 9), (3, 2)),
]
WRITABLE = ('own', 'official', 'timm', 'mmpretrain', 'huggingface', 'torchvision')
# That of timm's features_only has no last norm: a test of its own.
LAYOUTS = {name: layouts.LAYOUTS[name] for name in WRITABLE}


def build(seed=0, **settings):
    """A narrow model with telling weights, one output as classification weights have."""
    settings = {'arch': NARROW, 'window_size': 4, 'out_indices': (3,), **settings}
    model = SwinTransformerV2(**settings)
    oracle.randomise(model, seed=seed)
    return model.eval()


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(model, expected):
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert torch.equal(value, expected[name]), name
    windows = tuple(tuple(size) for size in expected['pretrained_window_sizes'].tolist())
    assert model.get_pretrained_window_sizes() == windows


def assert_refused(model, source, *words):
    """One sentence, with these words, and the model as it was."""
    before = snapshot(model)
    with pytest.raises(CheckpointError) as info:
        load_pretrained(model, source)
    message = str(info.value)
    assert '\n' not in message and len(message) < 400, message
    for word in words:
        assert word in message, message
    assert_same(model, before)


def in_layout(model, name):
    weights, left_out = to_layout(model, layout=LAYOUTS[name])
    assert not left_out
    return weights


# --- renaming -----------------------------------------------------------------------------------


def test_templates_read_and_write_numbers():
    template = Template('features.{2i+1}.{j}.norm.{leaf}')
    bindings = template.match('features.5.0.norm.bias')
    assert dict(bindings) == {'i': 2, 'j': 0, 'leaf': 'bias'}
    assert template.fill(bindings) == 'features.5.0.norm.bias'
    for other in ('features.4.0.norm.bias', 'features.05.0.norm.bias', 'features.5.0.norm.eps'):
        assert template.match(other) is None
    assert Template('layers.{i+1}.{rest}').match('layers.0.x') is None
    assert Template('{i}.{i}').match('1.2') is None


@pytest.mark.parametrize('layout', LAYOUTS)
def test_round_trip_is_bitwise(layout):
    model = build(out_indices=(0, 1, 2, 3) if layout in ('own', 'mmpretrain') else (3,))
    weights = in_layout(model, layout)
    other = build(
        seed=1,
        out_indices=model.out_indices,
        pretrained_window_sizes=model.get_pretrained_window_sizes(),
    )
    report = load_pretrained(other, weights)
    assert report.layout == layout
    assert_same(other, snapshot(model))
    assert sorted(report.loaded) == sorted(name for name, _ in model.named_parameters())
    accounted = {*report.renamed, *report.dropped, *report.loaded, 'pretrained_window_sizes'}
    assert accounted >= set(weights)
    assert bool(report.renamed) == (layout != 'own')
    assert not report.missing and not report.unexpected


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_row_of_a_table_inverts(layout):
    weights = in_layout(build(), layout)
    rules = LAYOUTS[layout].reading_rules(num_stages=4)
    own = translate(weights, rules=rules)
    assert not own.unmatched
    again = translate(own.values, rules=LAYOUTS[layout].writing_rules(num_stages=4))
    assert not again.unmatched
    assert again.values.keys() == weights.keys()
    assert all(torch.equal(again.values[name], weights[name]) for name in weights)


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.bin', '.safetensors'])
@pytest.mark.parametrize('layout', WRITABLE)
def test_files_round_trip(tmp_path, layout, suffix):
    model = build(pretrained_window_sizes=(6, 6, 6, 3))
    path = tmp_path / f'weights{suffix}'
    assert save_pretrained(model, path, layout=layout) == {}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    # The windows are in the file, but for PyTorch files of the layouts that have no place.
    is_silent = layout in ('timm', 'huggingface') and suffix != '.safetensors'
    other = build(seed=1, pretrained_window_sizes=(6, 6, 6, 3) if is_silent else None)
    load_pretrained(other, path)
    assert_same(other, snapshot(model))


@pytest.mark.parametrize('layout', ['official', 'timm', 'huggingface'])
def test_output_norms_that_a_layout_cannot_hold_are_named(tmp_path, layout):
    model = build(out_indices=(0, 1, 2, 3))
    left_out = save_pretrained(model, tmp_path / 'a.safetensors', layout=layout)
    expected = {f'norm{i}.{leaf}' for i in range(3) for leaf in ('weight', 'bias')}
    assert set(left_out) == expected and all('last stage only' in r for r in left_out.values())
    report = load_pretrained(model, tmp_path / 'a.safetensors')
    assert set(report.missing) == expected


def test_a_model_that_holds_a_backbone_is_enough(tmp_path):
    detector = nn.ModuleDict({'backbone': build(), 'neck': nn.Linear(2, 2)})
    save_pretrained(detector, tmp_path / 'a.pth')
    other = nn.ModuleDict({'backbone': build(seed=1), 'neck': nn.Linear(2, 2)})
    load_pretrained(other, tmp_path / 'a.pth')
    assert_same(other['backbone'], snapshot(detector['backbone']))
    for wrong in (nn.Linear(2, 2), nn.ModuleList([build(), build()])):
        with pytest.raises(ValueError, match='exactly one'):
            load_pretrained(wrong, tmp_path / 'a.pth')


# --- written files, read by the peers themselves ------------------------------------------------

PEER_ARCH = {'embed_dim': 16, 'depths': (2, 1, 3, 2), 'num_heads': (1, 2, 4, 8)}


def features(model):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 3, 128, 128, generator=generator)
    with torch.no_grad():
        return x, model(x)[-1].mean((2, 3))


def peer_of(layout):
    if layout == 'huggingface':
        transformers = pytest.importorskip('transformers')
        peer = transformers.Swinv2Model(
            transformers.Swinv2Config(image_size=128, window_size=8, **PEER_ARCH)
        )
        return peer.eval(), lambda x: peer(x).pooler_output
    from timm.models.swin_transformer_v2 import SwinTransformerV2 as Peer

    peer = Peer(img_size=128, window_size=8, num_classes=0, **PEER_ARCH)
    return peer.eval(), peer


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('layout', ['official', 'timm', 'huggingface'])
def test_peers_load_what_is_written(tmp_path, layout, suffix):
    model = build(arch=PEER_ARCH, window_size=8, pretrained_window_sizes=(8, 8, 8, 4))
    path = tmp_path / f'weights{suffix}'
    save_pretrained(model, path, layout=layout)
    if suffix == '.safetensors':
        weights = safetensors.torch.load_file(path)
    else:
        weights = torch.load(path, weights_only=True)
    peer, run = peer_of(layout)
    if layout == 'official':
        # timm's own reader of official files; it drops the coordinate tables.
        from timm.models.swin_transformer_v2 import checkpoint_filter_fn

        weights = checkpoint_filter_fn({'model': weights}, peer)
    assert peer.load_state_dict(weights, strict=True)
    x, ours = features(model)
    with torch.no_grad():
        torch.testing.assert_close(ours, run(x), rtol=1e-4, atol=1e-4)


# --- recognition --------------------------------------------------------------------------------


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'encoder.', 'model.backbone.'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_prefixes_are_found(layout, prefix):
    model = build()
    weights = {prefix + name: value for name, value in in_layout(model, layout).items()}
    if prefix:
        weights |= {'head.fc.weight': torch.ones(2, 2), 'decoder.0.bias': torch.ones(2)}
    other = build(seed=1, pretrained_window_sizes=4)
    report = load_pretrained(other, weights)
    assert report.layout == layout
    assert_same(other, snapshot(model))
    outside = {n for n, reason in report.dropped.items() if reason == 'not part of the backbone'}
    assert outside == ({'head.fc.weight', 'decoder.0.bias'} if prefix else set())


@pytest.mark.parametrize('wrapper', ['state_dict', 'model', 'module', 'model_state_dict'])
def test_wrappers_are_opened(wrapper):
    model = build()
    saved = {wrapper: {'state_dict': model.state_dict()}, 'epoch': 3, 'loss': torch.ones(1)}
    report = load_pretrained(build(seed=1), saved)
    assert report.dropped == {'epoch': 'beside the weights', 'loss': 'beside the weights'}


@pytest.mark.parametrize('wrapper', ['state_dict_ema', 'model_ema', 'ema_state_dict'])
def test_averaged_weights_serve_where_there_are_no_others(wrapper):
    averaged = build(seed=2)
    load_pretrained(other := build(seed=1), {wrapper: averaged.state_dict(), 'epoch': 3})
    assert_same(other, snapshot(averaged))


@pytest.mark.parametrize(
    ('average', 'last'), [('state_dict_ema', 'state_dict'), ('model_ema', 'model')]
)
def test_the_average_that_timm_saves_counts(average, last, tmp_path):
    averaged, trained = build(seed=2), build(seed=3)
    both = {last: trained.state_dict(), average: averaged.state_dict(), 'epoch': 3}
    torch.save(both, file := tmp_path / 'last.pth.tar')
    report = load_pretrained(other := build(seed=1), file)
    assert_same(other, snapshot(averaged))
    assert average in report.dropped[last] and f'#{last}' in report.dropped[last]
    load_pretrained(other, f'{file}#{last}')
    assert_same(other, snapshot(trained))
    with pytest.raises(CheckpointError, match=f'absent.*{last}'):
        load_pretrained(other, f'{file}#absent')
    torch.save({**both, average: {}}, file)
    load_pretrained(other, file)
    assert_same(other, snapshot(trained))


def test_the_state_dict_of_mmengine_is_the_average_already(tmp_path):
    """EMAHook exchanges the two when it saves."""
    averaged, trained = build(seed=2), build(seed=3)
    both = {'state_dict': averaged.state_dict(), 'ema_state_dict': trained.state_dict()}
    report = load_pretrained(other := build(seed=1), both)
    assert_same(other, snapshot(averaged))
    assert 'FILE#ema_state_dict' in report.dropped['ema_state_dict']


@pytest.mark.parametrize('is_nested', [False, True])
def test_other_weights_that_are_passed_over_are_named(is_nested, tmp_path):
    """Whatever a program calls its average, the report says how to take it."""
    trained, average = build(seed=2), build(seed=3)
    other = {'state_dict': average.state_dict()} if is_nested else average.state_dict()
    file = tmp_path / 'last.pth'
    torch.save({'model': trained.state_dict(), 'ema': other}, file)
    report = load_pretrained(model := build(seed=1), file)
    assert_same(model, snapshot(trained))
    assert 'FILE#ema' in report.dropped['ema']
    load_pretrained(model, f'{file}#ema')
    assert_same(model, snapshot(average))


def test_an_averaging_module_is_seen_through():
    model = build()
    weights = torch.optim.swa_utils.AveragedModel(model).state_dict()
    assert 'n_averaged' in weights
    report = load_pretrained(other := build(seed=1), weights)
    assert_same(other, snapshot(model))
    assert report.dropped == {'n_averaged': 'not part of the backbone'}


def test_deepspeed_files_are_read(tmp_path):
    """What its engine saves under stage 1: the module, and settings of the optimiser beside it."""
    model = build()
    content = {'module': model.state_dict(), 'optimizer': None, 'dp_world_size': 2, 'ds_config': {}}
    torch.save(content, tmp_path / 'mp_rank_00_model_states.pt')
    load_pretrained(other := build(seed=1), tmp_path / 'mp_rank_00_model_states.pt')
    assert_same(other, snapshot(model))
    # And what zero_to_fp32.py makes of the later stages: names and float32 values, nothing else.
    torch.save(dict(model.state_dict()), tmp_path / 'pytorch_model.bin')
    load_pretrained(other := build(seed=2), tmp_path)
    assert_same(other, snapshot(model))


def test_compiled_and_wrapped_modules_are_seen_through():
    model = build()
    weights = {
        '_orig_mod.backbone.' + name.replace('.blocks.0.', '.blocks.0._checkpoint_wrapped_module.')
        : value
        for name, value in model.state_dict().items()
    }  # fmt: skip
    other = build(seed=1)
    load_pretrained(other, weights)
    assert_same(other, snapshot(model))


def test_official_pretraining_names():
    """SimMIM: everything under ``encoder.``, a mask token, the bias network's first name."""
    model = build()
    weights = {
        'encoder.' + name.replace('cpb_mlp', 'rpe_mlp'): value
        for name, value in in_layout(model, 'official').items()
    }
    weights |= {'encoder.mask_token': torch.zeros(1, 1, 8), 'decoder.0.weight': torch.ones(3)}
    other = build(seed=1)
    report = load_pretrained(other, {'model': weights, 'epoch': 1})
    assert report.layout == 'official'
    assert 'mask token' in report.dropped['encoder.mask_token']
    assert_same(other, snapshot(model))


def test_hugging_face_pretraining():
    transformers = pytest.importorskip('transformers')
    config = transformers.Swinv2Config(image_size=128, window_size=8, **PEER_ARCH)
    peer = transformers.Swinv2ForMaskedImageModeling(config)
    oracle.randomise(peer.eval(), seed=0)
    model = build(seed=1, arch=PEER_ARCH, window_size=8, pretrained_window_sizes=(8, 8, 8, 4))
    report = load_pretrained(model, peer.state_dict())
    assert report.layout == 'huggingface' and not report.missing
    assert 'mask token' in report.dropped['swinv2.embeddings.mask_token']
    assert report.dropped['decoder.0.weight'] == 'not part of the backbone'
    x, ours = features(model)
    with torch.no_grad():
        theirs = peer.swinv2(x).last_hidden_state.mean(1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_official_classification_and_detection_files():
    model = build(out_indices=(0, 1, 2, 3))
    weights = {n: v for n, v in model.state_dict().items() if n != 'pretrained_window_sizes'}
    other = build(seed=1, out_indices=(0, 1, 2, 3), pretrained_window_sizes=4)
    report = load_pretrained(other, {f'backbone.{name}': value for name, value in weights.items()})
    assert report.layout == 'official' and not report.missing
    assert_same(other, snapshot(model))

    weights = in_layout(build(), 'official') | {
        'head.weight': torch.ones(3, 64),
        'layers.0.blocks.1.attn_mask': torch.ones(4, 16, 16),
        'layers.0.blocks.1.attn.relative_position_index': torch.ones(16, 16).long(),
    }
    other = build(seed=1, out_indices=(0, 1, 2, 3))
    kept = other.norm0.weight.clone()
    report = load_pretrained(other, weights)
    assert report.dropped['head.weight'] == 'classification head'
    assert report.dropped['layers.0.blocks.1.attn_mask'] == 'follows from the window'
    assert len(report.missing) == 6
    assert all('no output norm' in reason for reason in report.missing.values())
    assert torch.equal(other.norm0.weight, kept)
    assert report.renamed['norm.weight'] == ('norm3.weight',)
    assert torch.equal(other.norm3.weight, weights['norm.weight'])


def test_names_of_old_timm_are_official_ones():
    weights = in_layout(build(), 'timm')
    assert 'layers.1.downsample.reduction.weight' in weights
    assert 'layers.0.downsample.reduction.weight' not in weights
    model = build(pretrained_window_sizes=4)
    old = {n: v for n, v in in_layout(build(), 'official').items() if 'coords' not in n}
    assert load_pretrained(model, old).layout == 'official'
    assert load_pretrained(model, weights).layout == 'timm'


def test_norms_of_stages_that_are_not_returned_are_dropped():
    report = load_pretrained(build(out_indices=(2, 3)), build(out_indices=(0, 3)).state_dict())
    assert set(report.missing) == {'norm2.weight', 'norm2.bias'}
    assert set(report.dropped) == {'norm0.weight', 'norm0.bias'}


def test_the_report_can_be_read():
    weights = in_layout(build(window_size=(4, 4, (4, 6), 2)), 'official')
    report = load_pretrained(build(out_indices=(1, 3)), weights | {'head.bias': torch.ones(2)})
    assert isinstance(report, LoadReport)
    lines = str(report).splitlines()
    assert 'official' in lines[0] and '4, 4, 4x6, 2' in lines[0]
    assert any('dropped' in line and 'head.bias' in line for line in lines)
    assert any('missing' in line and 'norm1.weight, norm1.bias' in line for line in lines)


@pytest.mark.parametrize('extra', [None, 2])
def test_architectures_are_read_off_the_weights(extra):
    model = build(arch=NARROW | {'extra_norm_every': extra})
    assert architecture_of(dict(model.named_parameters())) == model.arch


@pytest.mark.parametrize('extra', [None, 2])
def test_files_in_the_naming_of_the_simmim_family(extra):
    source = build(arch=NARROW | {'extra_norm_every': extra})
    names = {}
    for name, value in source.state_dict().items():
        name = name.replace('cpb_mlp', 'rpe_mlp')
        if name.startswith('norm3.'):
            name = name.removeprefix('norm3.').join(('norm.', ''))
        elif '.norm3.' in name:
            name = name.replace('.norm3.', '.enorm.')
        names[f'encoder.{name}'] = value
    names['encoder.mask_token'] = torch.zeros(1, 1, 8)
    names['decoder.0.weight'], names['decoder.0.bias'] = torch.zeros(4, 4, 1, 1), torch.zeros(4)
    names.pop('encoder.pretrained_window_sizes')
    assert any('enorm' in name for name in names) == (extra is not None)
    other = build(
        seed=1,
        arch=NARROW | {'extra_norm_every': extra},
        pretrained_window_sizes=source.get_pretrained_window_sizes(),
    )
    report = load_pretrained(other, names)
    assert report.layout == 'official' and not report.missing
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(other(x)[-1], source(x)[-1], rtol=0, atol=1e-6)


def test_extra_norms_travel_where_they_can(tmp_path):
    arch = NARROW | {'extra_norm_every': 2}
    model, other = build(arch=arch), build(seed=1, arch=arch, pretrained_window_sizes=4)
    load_pretrained(other, in_layout(model, 'mmpretrain'))
    assert_same(other, snapshot(model))
    for layout in ('official', 'timm', 'huggingface'):
        with pytest.raises(ValueError, match='extra norms'):
            save_pretrained(model, tmp_path / 'a.pth', layout=layout)
    assert not list(tmp_path.iterdir())


# --- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize('layout', ['own', 'official'])
@pytest.mark.parametrize('windows', WINDOWS)
def test_trained_windows_are_found(windows, layout):
    model = build(window_size=windows)
    other = build(seed=1, window_size=5)
    report = load_pretrained(other, in_layout(model, layout))
    assert report.pretrained_window_sizes == other.get_pretrained_window_sizes() == windows
    assert other.window_sizes == ((5, 5),) * 4


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('kind', ['log_cpb', 'linear_cpb'])
def test_coordinate_tables_are_inverted(kind, dtype):
    """Fine-tuned at another window: the table's size is that one, its values tell the first."""
    for reference in range(2, 49):
        for side in {2, 7, 12, reference, 64}:
            table = relative_coords(
                (side, 3),
                pretrained_window_size=(reference, 4),
                kind=kind,
                device=torch.device('cpu'),
                dtype=torch.float64,
            )
            table = table.unflatten(0, (2 * side - 1, 5))[None]
            found = window_of_coords(table.to(dtype), kind=kind)
            if dtype in (torch.float64, torch.float32):
                assert found == (reference, 4)
            elif dtype is torch.float16 and kind == 'log_cpb':
                assert found == (reference, 4) or side < 7
            elif found is not None and 7 <= side and reference <= 16:
                assert abs(found[0] - reference) <= 1


def test_a_chain_of_fine_tunings_keeps_the_first_window(tmp_path):
    model = build(window_size=4)
    for step, window in enumerate((8, 16)):
        save_pretrained(model, tmp_path / f'{step}.pth', layout='official')
        model = build(seed=step, window_size=window)
        load_pretrained(model, tmp_path / f'{step}.pth')
    assert model.get_pretrained_window_sizes() == ((4, 4),) * 4
    assert model.window_sizes == ((16, 16),) * 4


def one_step(model):
    """Train for one step, at a rate at which weights visibly change."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.01)
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    model(x)[-1].square().mean().backward()
    optimizer.step()


def bias_functions(model, windows):
    """The bias of every block at several windows, as maps with these windows see it."""
    found = []
    for window in windows:
        model.set_window_size(window)
        for stage in model.eval().layers:
            for block in stage.blocks:
                grid = window_grid(
                    (window,) * 2, window=stage.window, shifted=False, tiling='fixed'
                )
                found.append(block.attn.bias_table(grid).detach())
    return found


@pytest.mark.parametrize('layout', ['own', 'official', 'mmpretrain'])
@pytest.mark.parametrize('chain', [(8, 16, 32), (12, 24, 40)])
def test_a_chain_of_trainings_has_the_bias_of_the_direct_way(tmp_path, chain, layout):
    model = build(window_size=chain[0])
    for window in chain[1:]:
        before = snapshot(model)
        one_step(model)
        assert not torch.equal(
            before['layers.0.blocks.0.attn.cpb_mlp.0.weight'],
            model.layers[0].blocks[0].attn.cpb_mlp[0].weight,
        )
        save_pretrained(model, tmp_path / f'{window}.pth', layout=layout)
        model = build(seed=window, window_size=window)
        load_pretrained(model, tmp_path / f'{window}.pth')
    one_step(model)
    assert model.get_pretrained_window_sizes() == ((chain[0],) * 2,) * 4
    # Straight from the first window to the last, with the same weights.
    direct = build(seed=1, window_size=chain[-1], pretrained_window_sizes=chain[0])
    direct.load_state_dict(model.state_dict())
    through = bias_functions(model, chain)
    for one, other in zip(through, bias_functions(direct, chain), strict=True):
        assert torch.equal(one, other)
    # It does depend on the reference: a chain that forgot it would differ.
    forgetful = build(seed=1, window_size=chain[-1])
    weights = {k: v for k, v in model.state_dict().items() if k != 'pretrained_window_sizes'}
    forgetful.load_state_dict(weights, strict=False)
    assert not torch.allclose(through[-1], bias_functions(forgetful, chain)[-1], atol=1e-3)


def test_windows_are_asked_for_when_nothing_tells():
    weights = in_layout(build(), 'timm')
    assert_refused(build(seed=1), weights, 'pretrained_window_sizes', 'timm')
    model = build(seed=1, pretrained_window_sizes=(12, 12, 12, 6))
    report = load_pretrained(model, weights)
    assert report.pretrained_window_sizes == ((12, 12), (12, 12), (12, 12), (6, 6))


def test_a_setting_that_contradicts_the_weights_is_refused():
    for layout in ('own', 'official'):
        weights = in_layout(build(), layout)
        model = build(seed=1, pretrained_window_sizes=5)
        assert_refused(model, weights, 'pretrained_window_sizes', 'leave the setting out')


@pytest.mark.parametrize(
    'value', [torch.full((4, 2), 1.5), torch.zeros(4, 2).long(), torch.ones(4)]
)
def test_nonsense_windows_are_refused(value):
    weights = build().state_dict() | {'pretrained_window_sizes': value}
    assert_refused(build(seed=1), weights, 'pretrained_window_sizes')


def test_nonsense_coordinates_are_refused():
    name = 'layers.2.blocks.1.attn.relative_coords_table'
    weights = in_layout(build(), 'official')
    good = weights[name]
    for wrong in (
        good * 1.3,
        good.flip(1),
        good[0],
        good * 0,
        good * 1e6,
        good * float('nan'),
        good / 0,
        good[:, :0],
    ):
        assert_refused(build(seed=1), weights | {name: wrong}, name)
    other = relative_coords(
        (4, 4), pretrained_window_size=(6, 6), kind='log_cpb', device=good.device, dtype=good.dtype
    )
    assert_refused(build(seed=1), weights | {name: other.view_as(good)}, 'contradict', 'stage 2')
    only = {n: v for n, v in weights.items() if 'coords' not in n or n == name}
    assert_refused(build(seed=1), only, 'only the stages [2]')


@pytest.mark.parametrize('layout', ['own', 'official'])
def test_learnt_tables_take_the_shape_of_the_weights(layout):
    model = build(position_bias='table', window_size=(4, 4, 3, 2))
    weights = model.state_dict()
    if layout == 'official':
        weights = {n.replace('norm3.', 'norm.') if n.startswith('norm') else n: v
                   for n, v in weights.items() if n != 'pretrained_window_sizes'}  # fmt: skip
    other = build(seed=1, position_bias='table', window_size=6)
    load_pretrained(other, weights)
    assert_same(other, snapshot(model))
    assert_refused(build(), weights, "'table'", "'log_cpb'")
    assert_refused(other, build().state_dict(), "'log_cpb'", "'table'")
    weights['layers.0.blocks.1.attn.relative_position_bias_table'] = torch.ones(9, 1)
    assert_refused(other, weights)


def test_linear_networks_stay_in_our_layout(tmp_path):
    model = build(position_bias='linear_cpb')
    load_pretrained(build(seed=1, position_bias='linear_cpb'), model.state_dict())
    with pytest.raises(ValueError, match='linear_cpb'):
        save_pretrained(model, tmp_path / 'a.pth', layout='official')
    for weights in (in_layout(build(), 'official'), build().state_dict()):
        assert_refused(model, weights, "'log_cpb'", "'linear_cpb'")


# --- weights that do not fit --------------------------------------------------------------------


def test_another_size_is_named():
    wide = build(arch=NARROW | {'embed_dim': 16})
    assert_refused(build(), wide.state_dict(), 'embed_dim 16', 'embed_dim 8')
    deep = build(arch=NARROW | {'depths': (2, 1, 6, 2)})
    assert_refused(build(), deep.state_dict(), 'depths (2, 1, 6, 2)', 'depths (2, 1, 3, 2)')
    heads = build(arch=NARROW | {'num_heads': (2, 2, 2, 4)})
    assert_refused(build(), heads.state_dict(), 'num_heads (2, 2, 2, 4)')
    short = build(arch={'embed_dim': 8, 'depths': (2,), 'num_heads': (1,)}, out_indices=(0,))
    assert_refused(build(), short.state_dict(), 'depths (2,)')
    assert_refused(short, build().state_dict(), 'depths (2,)')
    extra = build(arch=NARROW | {'extra_norm_every': 2})
    assert_refused(build(), extra.state_dict(), 'in the weights alone', 'extra_norm_every=2')
    assert_refused(extra, build().state_dict(), 'in the model alone', 'extra_norm_every=None')


def test_a_released_size_is_called_by_its_name():
    with torch.device('meta'):
        base = SwinTransformerV2('base')
    assert_refused(build(), base.state_dict(), "arch='base'", 'embed_dim 128')


@pytest.mark.parametrize('layout', LAYOUTS)
def test_no_parameter_may_be_missing_or_left_over(layout):
    """Every single name in turn: no silent partial load."""
    arch = {'embed_dim': 4, 'depths': (1, 2), 'num_heads': (1, 2)}
    settings = {'arch': arch, 'out_indices': (1,), 'window_size': 3}
    weights = in_layout(build(**settings), layout)
    model = build(seed=1, pretrained_window_sizes=3, **settings)
    before = snapshot(model)
    skipped = ('pretrained_window_sizes', 'relative_coords_table')
    for name in weights:
        changed = {n: v for n, v in weights.items() if n != name}
        if not name.endswith(skipped):
            with pytest.raises(CheckpointError):
                load_pretrained(model, changed)
        with pytest.raises(CheckpointError):
            load_pretrained(model, changed | {name + 'x': weights[name]} | {'extra': weights[name]})
        wrong_shape = torch.ones(5, 3, 2) if not name.endswith(skipped) else torch.ones(1)
        with pytest.raises(CheckpointError):
            load_pretrained(model, weights | {name: wrong_shape})
        if not name.endswith(skipped):
            for wrong in (float('nan'), float('inf')):
                value = weights[name].clone()
                value.view(-1)[-1] = wrong
                with pytest.raises(CheckpointError, match='NaN'):
                    load_pretrained(model, weights | {name: value})
    assert_same(model, before)


def test_wrong_values_have_a_sentence_each():
    weights = build().state_dict()
    name = 'layers.1.blocks.0.attn.proj.weight'
    model = build(seed=1)
    value = weights[name]
    assert_refused(model, weights | {name: value.T[:5]}, name, '(5, 16)', '(16, 16)')
    assert_refused(model, weights | {name: value.long()}, name, 'int64')
    assert_refused(model, weights | {name: value.to_sparse()}, name, 'sparse')
    assert_refused(model, weights | {name: value.to('meta')}, name, 'meta')
    assert_refused(model, weights | {name: value.log()}, name, 'NaN')
    assert_refused(model, weights | {name: value.tolist()}, 'lack', name)
    assert_refused(model, weights | {'layers.1.blocks.0.attn.rogue': value}, 'no place', 'rogue')
    far = {'layers.999999.blocks.0.attn.logit_scale': torch.ones(1)}
    assert_refused(model, weights | far, 'no place', '999999')
    assert_refused(model, weights | {'norm.weight': weights['norm3.weight']}, 'no place')
    official = in_layout(build(), 'official')
    both = official | {'norm3.weight': official['norm.weight']}
    assert_refused(model, both, 'twice', 'norm3.weight')
    merging = in_layout(build(), 'mmpretrain')
    name = 'stages.1.downsample.reduction.weight'
    assert_refused(model, merging | {name: torch.ones(16, 7)}, name, '(16, 7)')


def test_other_models_have_a_sentence_each():
    assert_refused(build(), {}, 'no tensors')
    assert_refused(build(), {'a': 1}, 'no tensors')
    assert_refused(build(), {'fc.weight': torch.ones(1)}, 'not the weights of a SwinV2')
    first_swin = {n: v for n, v in build().state_dict().items() if 'logit_scale' not in n}
    assert_refused(build(), first_swin, 'no logit_scale')
    weights = build().state_dict()
    two = {f'{who}.{n}': v for who in ('student', 'teacher') for n, v in weights.items()}
    assert_refused(build(), two, 'several backbones', 'student', 'teacher')


def test_precision_is_the_models():
    model = build().double()
    report = load_pretrained(model, build(seed=1).half().state_dict())
    assert report.layout == 'own' and model.norm3.weight.dtype is torch.float64
    assert torch.equal(model.norm3.weight, build(seed=1).half().norm3.weight.double())
    weights = build().state_dict()
    weights['norm3.weight'] = weights['norm3.weight'] * 1e6
    assert_refused(build().half(), weights, 'infinite')


def test_kept_bias_tables_are_renewed():
    model, other = build(), build(seed=1)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model(x)
        load_pretrained(model, other.state_dict())
        assert torch.equal(model(x)[0], other(x)[0])


def test_a_model_without_memory_is_refused():
    with torch.device('meta'):
        model = SwinTransformerV2(NARROW)
    with pytest.raises(ValueError, match='meta'):
        load_pretrained(model, build().state_dict())


# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.pth'
    save_pretrained(build(), path)
    return path


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_broken_files_have_a_sentence_each(tmp_path, suffix):
    whole = tmp_path / f'whole{suffix}'
    save_pretrained(build(), whole)
    content = whole.read_bytes()
    path = tmp_path / f'broken{suffix}'
    assert_refused(build(), path, str(path), 'No such file')
    assert_refused(build(), tmp_path, 'is a folder without')
    cases = {
        b'': 'is empty',
        b'\n  <!DOCTYPE html><html>404</html>': 'web page',
        b'version https://git-lfs.github.com/spec/v1\n': 'Git LFS',
        b'\x00' * 100: 'damaged',
        b'hello': 'damaged',
        b'PK\x03\x04': 'damaged',
        b'\x80\x02.': 'damaged',
        b'\xff' * 8 + content[8:]: 'damaged',
    }
    cases |= {content[: len(content) * part // 10]: 'damaged' for part in range(1, 10)}
    for data, word in cases.items():
        path.write_bytes(data)
        assert_refused(build(), path, str(path), word)


def test_other_things_in_a_file_have_a_sentence(tmp_path):
    path = tmp_path / 'list.pth'
    torch.save([torch.ones(1)], path)
    assert_refused(build(), path, str(path), 'list')
    torch.save({'a': torch.ones(1)}, path)
    assert_refused(build(), path, str(path), 'not the weights of a SwinV2')


class Hostile:
    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('is_forced', [False, True])
@pytest.mark.parametrize('is_zip', [True, False])
def test_hostile_pickles_do_not_run(tmp_path, monkeypatch, is_zip, is_forced):
    if is_forced:
        # An environment in which everything else is read without care.
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    proof = tmp_path / 'proof'
    calls = [
        (os.system, f'touch {proof}'),
        (os.mkdir, str(proof)),
        (eval, f'open({str(proof)!r}, "w")'),
        (exec, f'open({str(proof)!r}, "w")'),
        (open, str(proof), 'w'),
        (subprocess.call, ['touch', str(proof)]),
    ]
    path = tmp_path / 'hostile.pth'
    for call in calls:
        content = {'state_dict': build().state_dict(), 'meta': Hostile(*call)}
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        assert_refused(build(seed=1), path, str(path), 'run code')
        path.write_bytes(pickle.dumps(content['meta']))
        assert_refused(build(seed=1), path, str(path))
        assert not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists(), 'the last payload itself would have worked'


def test_code_hidden_behind_harmless_names_does_not_run(tmp_path):
    """getattr is in genuine MMEngine files; here it reaches nothing."""
    proof = tmp_path / 'proof'
    text = f'cbuiltins\ngetattr\n(cbuiltins\ngetattr\nV__globals__\ntRV{proof}\n.'
    path = tmp_path / 'hidden.pth'
    path.write_bytes(text.encode())
    assert_refused(build(), path, str(path))
    reached = Hostile(getattr, OrderedDict, 'fromkeys')
    torch.save({'state_dict': build().state_dict(), 'x': reached}, path)
    other = build(seed=1)
    load_pretrained(other, path)
    assert_same(other, snapshot(build()))
    refused = Hostile(getattr, dict, 'fromkeys')
    torch.save({'state_dict': build().state_dict(), 'x': refused}, path)
    assert_refused(other, path, 'run code', 'dict')


def test_training_checkpoints_are_read(module_of_paths, tmp_path, monkeypatch):
    """What MMEngine, the official code and timm save beside the weights is passed over."""
    import argparse
    import pathlib

    from mmengine.logging import MessageHub

    class CfgNode(dict):
        """As yacs has it: a dict with attributes."""

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    for name in ('yacs', 'yacs.config'):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules['yacs.config'].CfgNode = CfgNode
    config = CfgNode(MODEL=CfgNode(TYPE='swinv2'))
    config.__dict__['__immutable__'] = True
    hub = MessageHub('test_training_checkpoints_are_read')
    for step in range(3):
        hub.update_scalar('train/loss', 1.0 / (step + 1))
    model = build()
    optimizer = torch.optim.AdamW(model.parameters())
    beside = {
        'meta': {'epoch': 1},
        'message_hub': hub.state_dict(),
        'config': config,
        'args': argparse.Namespace(lr=1.0, output=pathlib.Path('x')),
        'optimizer': optimizer.state_dict(),
    }
    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': OrderedDict(model.state_dict()), **beside}, path)
    other = build(seed=1)
    report = load_pretrained(other, path)
    assert_same(other, snapshot(model))
    assert report.dropped == dict.fromkeys(beside, 'beside the weights')


def test_saving_is_all_or_nothing(tmp_path, monkeypatch, good):
    before = good.read_bytes()

    def fail(weights, file):
        file.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(UserError, match='disk full'):
        save_pretrained(build(seed=1), good)
    assert good.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [good.name]
    with pytest.raises(ValueError, match='unknown layout'):
        save_pretrained(build(), good, layout='keras')
    with pytest.raises(ValueError, match='must end in'):
        save_pretrained(build(), tmp_path / 'weights.h5')


def test_safetensors_notes_are_checked(tmp_path):
    path = tmp_path / 'a.safetensors'
    weights = in_layout(build(), 'timm')
    for note in ('no json', '[]', '[[0, 1], [1, 1], [1, 1], [1, 1]]', '7'):
        save_file(weights, path, metadata={'pretrained_window_sizes': note})
        assert_refused(build(seed=1), path, 'pretrained_window_sizes')
    save_file(weights, path, metadata={'pretrained_window_sizes': json.dumps([[9, 9]] * 4)})
    model = build(seed=1)
    load_pretrained(model, path)
    assert model.get_pretrained_window_sizes() == ((9, 9),) * 4


def test_a_source_is_not_changed():
    weights = {'state_dict': in_layout(build(), 'huggingface')}
    before = copy.deepcopy(weights)
    load_pretrained(build(seed=1, pretrained_window_sizes=4), weights)
    assert weights.keys() == before.keys()
    inner, expected = weights['state_dict'], before['state_dict']
    assert inner.keys() == expected.keys()
    assert all(torch.equal(inner[name], expected[name]) for name in inner)


def test_torch_and_safetensors_are_enough():
    code = (
        'import sys\n'
        'for name in ("mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "timm", "transformers",'
        ' "torchvision"):\n'
        '    sys.modules[name] = None\n'
        'import swinv2_mm.checkpoint\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


# --- weights in several files --------------------------------------------------------------------


def sharded_folder(path, model, *, suffix, num_parts=3):
    """As ``save_pretrained`` of Hugging Face's libraries writes it with a small max_shard_size."""
    weights = in_layout(model, 'huggingface')
    stem = {'safetensors': 'model', 'bin': 'pytorch_model'}[suffix]
    path.mkdir()
    files = {}
    for number in range(num_parts):
        name = f'{stem}-{number + 1:05}-of-{num_parts:05}.{suffix}'
        part = dict(list(weights.items())[number::num_parts])
        files |= dict.fromkeys(part, name)
        if suffix == 'bin':
            torch.save(part, path / name)
        else:
            save_file({k: v.contiguous() for k, v in part.items()}, path / name)
    index = path / f'{stem}.{suffix}.index.json'
    index.write_text(json.dumps({'metadata': {'total_size': 1}, 'weight_map': files}))
    config = {'model_type': 'swinv2', 'image_size': 64, 'patch_size': 4, 'window_size': 4}
    (path / 'config.json').write_text(json.dumps(config | {'depths': list(model.arch.depths)}))
    return index, files


@pytest.mark.parametrize('suffix', ['safetensors', 'bin'])
def test_weights_in_several_files(suffix, tmp_path):
    model = build(seed=2)
    index, files = sharded_folder(tmp_path / 'model', model, suffix=suffix)
    for source in (tmp_path / 'model', index):
        report = load_pretrained(other := build(seed=1), source)
        assert report.layout == 'huggingface'
        for name, value in model.named_parameters():
            assert torch.equal(other.get_parameter(name), value), name
    last = tmp_path / 'model' / max(files.values())
    last.rename(tmp_path / 'elsewhere')
    assert_refused(build(seed=1), index, last.name, 'No such file')
    for name in ('../elsewhere', str(tmp_path / 'elsewhere'), index.name, '..'):
        index.write_text(json.dumps({'weight_map': dict.fromkeys(files, name)}))
        assert_refused(build(seed=1), index)
    for text in ('', '[' * 100_000, '{}', '{"weight_map": {"a": 3}}', '{"weight_map": []}', '7'):
        index.write_text(text)
        assert_refused(build(seed=1), tmp_path / 'model', 'index')


def test_files_that_contradict_their_index(tmp_path):
    index, files = sharded_folder(tmp_path / 'model', build(), suffix='safetensors')
    index.write_text(json.dumps({'weight_map': files | {'absent': min(files.values())}}))
    assert_refused(build(seed=1), index, 'lacks absent')
    first, second, *_ = sorted(set(files.values()))
    (tmp_path / 'model' / second).write_bytes((tmp_path / 'model' / first).read_bytes())
    index.write_text(json.dumps({'weight_map': files}))
    assert_refused(build(seed=1), index, 'another file')


def test_swinv2_cr_is_another_architecture():
    timm = pytest.importorskip('timm')
    peer = timm.create_model('swinv2_cr_tiny_224', depths=(1, 1, 1, 1), embed_dim=24)
    assert_refused(build(), peer.state_dict(), 'swinv2_cr', 'another architecture')
