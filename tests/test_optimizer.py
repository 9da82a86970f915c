"""Which parameters decay, and how fast each learns."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn

import swinv2_mm.models  # noqa: F401
from swinv2_mm.engine.parameter_rules import backbone_depth

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
    with pytest.raises(ValueError, match='layer_decay_rate and backbone_lr_mult'):
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
