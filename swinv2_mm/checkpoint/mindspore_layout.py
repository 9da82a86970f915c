"""The layout of MindCV's SwinV2 in MindSpore, which is read only."""

from __future__ import annotations

from .layout import HEAD, JOINED_QKV, Layout, Row
from .stem import STEM

# How MindSpore numbers MindCV's cells: the first stage has one number less.
_STAGES = (
    ('layers.{i}.', 'layers.{i}.'),
    ('layers.{i}.', '0.blocks.{i}.'),
    ('layers.0.', '0.'),
)
# Prefixes of what a file of a whole training holds beside the weights.
OPTIMIZER_STATE = ('moment1.', 'moment2.', 'moments.')
_COUNTERS = ('beta1_power', 'beta2_power', 'global_step', 'learning_rate', 'epoch_num', 'step_num')


def _norm(own: str, foreign: str) -> tuple[Row, Row]:
    return Row(f'{own}.weight', f'{foreign}.gamma'), Row(f'{own}.bias', f'{foreign}.beta')


def _stage(own: str, foreign: str) -> tuple[Row, ...]:
    """Return the rows of a stage."""
    block, theirs = own + 'blocks.{j}.', foreign + 'blocks.{j}.'
    bias = theirs + 'attn.relative_position_bias.'
    qkv = tuple(theirs + f'attn.{part}.weight' for part in 'qkv')
    renamed = {
        block + 'attn.q_bias': theirs + 'attn.q.bias',
        block + 'attn.v_bias': theirs + 'attn.v.bias',
        block + 'attn.logit_scale': theirs + 'attn.logit_scale',
        block + 'attn.cpb_mlp.{n}.{leaf}': bias + 'cpb_mlp{n}.{leaf}',
        block + 'attn.relative_coords_table': bias + 'relative_coords_table',
        block + 'attn.relative_position_index': bias + 'relative_position_index',
        block + 'attn.proj.{leaf}': theirs + 'attn.proj.{leaf}',
        block + 'attn_mask': theirs + 'attn_mask',
        block + 'mlp.{rest}': theirs + 'mlp.{rest}',
        own + 'downsample.reduction.weight': foreign + 'downsample.reduction.weight',
    }
    return (
        Row(block + 'attn.qkv.weight', qkv, JOINED_QKV),
        *(Row(ours, name) for ours, name in renamed.items()),
        *_norm(block + 'norm{n}', theirs + 'norm{n}'),
        *_norm(own + 'downsample.norm', foreign + 'downsample.norm'),
    )


MINDSPORE = Layout(
    name='mindspore',
    stem=STEM,
    table=(
        Row('patch_embed.proj.{leaf}', 'patch_embed.proj.{leaf}'),
        *_norm('patch_embed.norm', 'patch_embed.norm'),
        *(row for stage in _STAGES for row in _stage(*stage)),
        *_norm('norm{last}', 'norm'),
    ),
    extras=(
        HEAD,
        *((name, 'state of the optimizer') for name in (*OPTIMIZER_STATE, *_COUNTERS)),
    ),
    numerics='mindspore',
)
