"""Which parameters decay, and how fast each learns.

``golden/optimizer_tiny.tsv`` lists every parameter of a Swin-T classifier, detector and segmentor.
``SWINV2_MM_REGENERATE=1 pytest tests/test_optimizer.py`` writes it anew.
"""

import os
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import swinv2_mm.models  # noqa: F401
from swinv2_mm.engine.parameter_rules import backbone_depth

GOLDEN = Path(__file__).parent / 'golden' / 'optimizer_tiny.tsv'
LAYER_DECAY_RATES = (0.95, 0.87)
# A config of each library, and what a Swin-T in place of its own backbone needs.
REAL_CONFIGS = {
    'mmpretrain': ('classification/swinv2-t-w8_16xb64_in1k-256.py', {}),
    'mmdet': (
        'detection/cascade-mask-rcnn_swinv2-nano-w12_facade.py',
        {'model.neck.in_channels': [96, 192, 384, 768]},
    ),
    'mmseg': (
        'segmentation/upernet_swinv2-nano-w8_facade.py',
        {
            'model.decode_head.in_channels': [96, 192, 384, 768],
            'model.auxiliary_head.in_channels': 384,
        },
    ),
}
# The rule by hand, for the 12 blocks of Swin-T: 13 steps from the stem to the head, one a block.
POWERS = {
    'patch_embed': 13,
    'layers.0.blocks.0': 12,
    'layers.0.blocks.1': 11,
    'layers.0.downsample': 11,
    'layers.1.blocks.0': 10,
    'layers.1.blocks.1': 9,
    'layers.1.downsample': 9,
    'layers.2.blocks.0': 8,
    'layers.2.blocks.1': 7,
    'layers.2.blocks.2': 6,
    'layers.2.blocks.3': 5,
    'layers.2.blocks.4': 4,
    'layers.2.blocks.5': 3,
    'layers.2.downsample': 3,
    'layers.3.blocks.0': 2,
    'layers.3.blocks.1': 1,
    'norm0': 0,
    'norm1': 0,
    'norm2': 0,
    'norm3': 0,
}
DECAYED_IN_BACKBONE = (
    'patch_embed.proj.weight',
    'attn.qkv.weight',
    'attn.proj.weight',
    'mlp.fc1.weight',
    'mlp.fc2.weight',
    'downsample.reduction.weight',
)
ARCH = {'embed_dim': 16, 'depths': (1, 2, 1, 1), 'num_heads': (1, 2, 4, 8)}


class Model(nn.Module):
    def __init__(self, **backbone):
        super().__init__()
        self.backbone = MODELS.build({'type': 'SwinV2', 'arch': ARCH, **backbone})
        self.head = nn.Linear(128, 3)


def settings(model, **paramwise):
    wrapper = build_optim_wrapper(
        model,
        {
            'constructor': 'SwinV2OptimWrapperConstructor',
            'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.05},
            'paramwise_cfg': paramwise,
        },
    )
    names = {id(p): n for n, p in model.named_parameters()}
    return {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }


def test_official_decay_rule():
    found = settings(Model())
    undecayed = {name for name, (_, decay) in found.items() if decay == 0}
    exempt = ('norm', 'bias', 'logit_scale', 'cpb_mlp')
    assert undecayed == {name for name in found if any(part in name for part in exempt)}
    assert 'backbone.layers.0.blocks.0.attn.cpb_mlp.0.weight' in undecayed
    assert 'head.weight' not in undecayed and 'backbone.patch_embed.proj.weight' not in undecayed


def test_every_trainable_parameter_is_in_one_group():
    model = Model(frozen_stages=0)
    assert set(settings(model)) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_table_is_not_decayed():
    found = settings(Model(position_bias='table'))
    assert found['backbone.layers.0.blocks.0.attn.relative_position_bias_table'][1] == 0


def test_queries_of_mask2former_are_not_decayed_and_those_of_dino_are():
    model = Model()
    for name in ('query_embed', 'query_feat', 'level_embed', 'query_embedding'):
        model.add_module(name, nn.Embedding(4, 8))
    model.level_codes = nn.ParameterDict({'level_embed': nn.Parameter(torch.zeros(4, 8))})
    decay = {name: decay for name, (_, decay) in settings(model).items()}
    assert decay['query_embed.weight'] == decay['query_feat.weight'] == 0
    assert decay['level_embed.weight'] == 0
    assert decay['query_embedding.weight'] == decay['level_codes.level_embed'] == 0.05


def test_layer_decay_and_backbone_rate():
    found = settings(Model(), layer_decay_rate=0.5, backbone_lr_mult=0.1)
    # Six depths: stem, five blocks, then output norms and head.
    expected = {
        'backbone.patch_embed.proj.weight': 1e-4 * 0.5**6,
        'backbone.layers.0.blocks.0.mlp.fc1.weight': 1e-4 * 0.5**5,
        'backbone.layers.0.downsample.reduction.weight': 1e-4 * 0.5**5,
        'backbone.layers.1.blocks.1.attn.qkv.weight': 1e-4 * 0.5**3,
        'backbone.layers.3.blocks.0.attn.logit_scale': 1e-4 * 0.5,
        'backbone.norm3.weight': 1e-4,
        'head.weight': 1e-3,
    }
    for name, rate in expected.items():
        assert found[name][0] == pytest.approx(rate), name


def test_depths_rise_through_the_model():
    depths = [backbone_depth(n, (1, 2, 1, 1)) for n, _ in Model().backbone.named_parameters()]
    assert depths == sorted(depths) and set(depths) == set(range(7))


def test_unknown_setting_is_refused():
    with pytest.raises(ValueError, match='backbone_lr_mult'):
        settings(Model(), custom_keys={})


def test_few_groups():
    wrapper = build_optim_wrapper(
        Model(),
        {
            'constructor': 'SwinV2OptimWrapperConstructor',
            'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.05},
        },
    )
    assert len(wrapper.optimizer.param_groups) == 2
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)


@pytest.fixture(scope='module')
def tiny_models():
    models = {}
    for scope, (path, changes) in REAL_CONFIGS.items():
        cfg = Config.fromfile(ROOT / 'configs' / path)
        cfg.merge_from_dict(changes)
        cfg.model.backbone.arch = 'tiny'
        with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
            models[scope] = MODELS.build(cfg.model)
    return models


def listing(models):
    """Rates at each layer decay, then weight decay, of every parameter; backbones are one entry."""
    rows = {}
    for scope, model in models.items():
        found = [settings(model, layer_decay_rate=rate) for rate in LAYER_DECAY_RATES]
        assert set(found[0]) == {name for name, _ in model.named_parameters()}
        for name in found[0]:
            key = name if name.startswith('backbone.') else f'{scope}: {name}'
            row = (*(f'{entry[name][0]:.6e}' for entry in found), f'{found[0][name][1]:g}')
            assert found[1][name][1] == found[0][name][1]
            assert rows.setdefault(key, row) == row, f'{key} differs between the libraries'
    return rows


def test_every_parameter_of_tiny_models_is_as_listed(tiny_models):
    head = '\t'.join(['parameter', *(f'lr at {r}' for r in LAYER_DECAY_RATES), 'weight decay'])
    rows = [f'{name}\t' + '\t'.join(row) for name, row in listing(tiny_models).items()]
    text = '\n'.join([head, *rows]) + '\n'
    if os.environ.get('SWINV2_MM_REGENERATE') == '1':
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_list_is_the_rule(tiny_models):
    weights = {
        f'{scope}: {name}.weight'
        for scope, model in tiny_models.items()
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    }
    lines = [line.split('\t') for line in GOLDEN.read_text().splitlines()[1:]]
    seen = set()
    for name, *rates, decay in lines:
        part = name.removeprefix('backbone.')
        if part == name:
            power, decays = 0, name in weights
        else:
            (key,) = [k for k in POWERS if part.startswith(f'{k}.')]
            seen.add(key)
            power, decays = POWERS[key], part.endswith(DECAYED_IN_BACKBONE)
        expected = [1e-3 * rate**power for rate in LAYER_DECAY_RATES]
        assert [float(rate) for rate in rates] == pytest.approx(expected, rel=1e-6), name
        assert float(decay) == (0.05 if decays else 0), name
    assert seen == set(POWERS)
