"""Define the weight layouts: one table of parameter names for each (see ``layout``)."""

from __future__ import annotations

import torch
from torch import Tensor

from swinv2_mm.core.numerics import NUMERICS_ENTRY

from .layout import HEAD, JOINED_QKV, Layout, Row
from .mindspore_layout import MINDSPORE
from .rules import Conversion
from .stem import STEM

# Name of the buffer with the windows that the position bias was trained at.
WINDOWS_BUFFER = 'pretrained_window_sizes'

# --- values that are arranged differently -------------------------------------------------------


def _merging_from_unfold(weight: Tensor) -> tuple[Tensor]:
    # nn.Unfold: channel slowest, then row, then column of the 2x2. Official: column, row,
    # channel (top left, bottom left, top right, bottom right).
    return (weight.unflatten(1, (-1, 2, 2)).permute(0, 3, 2, 1).flatten(1),)


def _merging_to_unfold(weight: Tensor) -> tuple[Tensor]:
    return (weight.unflatten(1, (2, 2, -1)).permute(0, 3, 2, 1).flatten(1),)


def _biases_of_merged(bias: Tensor) -> tuple[Tensor, Tensor]:
    # torchvision zeroes the key part at every forward, whatever it holds.
    query, _, value = bias.unflatten(0, (3, -1)).unbind()
    return query, value


def _merged_bias(query: Tensor, value: Tensor) -> tuple[Tensor]:
    return (torch.cat((query, torch.zeros_like(query), value)),)


# --- tables -------------------------------------------------------------------------------------

_STEM = Row('patch_embed.{rest}', 'patch_embed.{rest}')
_BLOCK = 'layers.{i}.blocks.{j}.'
_BLOCKS = Row(_BLOCK + '{rest}', _BLOCK + '{rest}')
_MERGING = Row('layers.{i}.downsample.{rest}', 'layers.{i}.downsample.{rest}')
_OUTPUT_NORMS = Row('norm{i}.{leaf}', 'norm{i}.{leaf}')
_FINAL_NORM = Row('norm{last}.{leaf}', 'norm.{leaf}')
_MASK_TOKEN = 'mask token of masked-image pre-training'

OWN = Layout(
    name='own',
    stem=STEM,
    table=(
        _STEM,
        _BLOCKS,
        _MERGING,
        _OUTPUT_NORMS,
        Row(WINDOWS_BUFFER, WINDOWS_BUFFER),
        Row(NUMERICS_ENTRY, NUMERICS_ENTRY),
    ),
    extras=(HEAD,),
)

# Also timm's names before 0.9, and the encoder of SimMIM.
OFFICIAL = Layout(
    name='official',
    stem=STEM,
    table=(
        # The first release of the self-supervised weights.
        Row(_BLOCK + 'attn.cpb_mlp.{rest}', _BLOCK + 'attn.rpe_mlp.{rest}', with_write=False),
        Row(_BLOCK + 'norm3.{leaf}', _BLOCK + 'enorm.{leaf}', with_write=False),
        _STEM,
        _BLOCKS,
        _MERGING,
        _FINAL_NORM,
        # Detectors built on the official code have a norm on each output, as ours.
        Row('norm{i}.{leaf}', 'norm{i}.{leaf}', with_write=False),
    ),
    extras=(HEAD, ('mask_token', _MASK_TOKEN)),
)

TIMM = Layout(
    name='timm',
    stem=STEM,
    table=(
        _STEM,
        _BLOCKS,
        # The merging opens a stage instead of closing the one before.
        Row('layers.{i}.downsample.{rest}', 'layers.{i+1}.downsample.{rest}'),
        _FINAL_NORM,
    ),
    extras=(HEAD,),
)

# What features_only=True makes of them: the stages' maps as they are, without the last norm.
TIMM_FEATURES = Layout(
    name='timm features',
    stem=STEM,
    table=(
        _STEM,
        Row(_BLOCK + '{rest}', 'layers_{i}.blocks.{j}.{rest}'),
        Row('layers.{i}.downsample.{rest}', 'layers_{i+1}.downsample.{rest}'),
    ),
    has_final_norm=False,
)

_MM_BLOCK = 'stages.{i}.blocks.{j}.'
MMPRETRAIN = Layout(
    name='mmpretrain',
    stem='patch_embed.projection.weight',
    table=(
        Row('patch_embed.proj.{leaf}', 'patch_embed.projection.{leaf}'),
        Row('patch_embed.norm.{leaf}', 'patch_embed.norm.{leaf}'),
        Row(_BLOCK + 'attn.{rest}', _MM_BLOCK + 'attn.w_msa.{rest}'),
        Row(_BLOCK + 'norm{n}.{leaf}', _MM_BLOCK + 'norm{n}.{leaf}'),
        Row(_BLOCK + 'mlp.fc1.{leaf}', _MM_BLOCK + 'ffn.layers.0.0.{leaf}'),
        Row(_BLOCK + 'mlp.fc2.{leaf}', _MM_BLOCK + 'ffn.layers.1.{leaf}'),
        Row(
            'layers.{i}.downsample.reduction.weight',
            'stages.{i+1}.downsample.reduction.weight',
            Conversion(_merging_from_unfold, _merging_to_unfold),
        ),
        Row('layers.{i}.downsample.norm.{leaf}', 'stages.{i+1}.downsample.norm.{leaf}'),
        _OUTPUT_NORMS,
    ),
    extras=(HEAD,),
)

_HF_BLOCK = 'encoder.layers.{i}.blocks.{j}.'
_HF_ATTENTION = _HF_BLOCK + 'attention.self.'
HUGGINGFACE = Layout(
    name='huggingface',
    stem='embeddings.patch_embeddings.projection.weight',
    table=(
        Row('patch_embed.proj.{leaf}', 'embeddings.patch_embeddings.projection.{leaf}'),
        Row('patch_embed.norm.{leaf}', 'embeddings.norm.{leaf}'),
        Row(
            _BLOCK + 'attn.qkv.weight',
            tuple(_HF_ATTENTION + f'{part}.weight' for part in ('query', 'key', 'value')),
            JOINED_QKV,
        ),
        Row(_BLOCK + 'attn.q_bias', _HF_ATTENTION + 'query.bias'),
        Row(_BLOCK + 'attn.v_bias', _HF_ATTENTION + 'value.bias'),
        Row(_BLOCK + 'attn.logit_scale', _HF_ATTENTION + 'logit_scale'),
        Row(
            _BLOCK + 'attn.cpb_mlp.{rest}',
            _HF_ATTENTION + 'continuous_position_bias_mlp.{rest}',
        ),
        Row(
            _BLOCK + 'attn.relative_coords_table',
            _HF_ATTENTION + 'relative_coords_table',
            with_write=False,
        ),
        Row(
            _BLOCK + 'attn.relative_position_index',
            _HF_ATTENTION + 'relative_position_index',
            with_write=False,
        ),
        Row(_BLOCK + 'attn.proj.{leaf}', _HF_BLOCK + 'attention.output.dense.{leaf}'),
        Row(_BLOCK + 'norm1.{leaf}', _HF_BLOCK + 'layernorm_before.{leaf}'),
        Row(_BLOCK + 'norm2.{leaf}', _HF_BLOCK + 'layernorm_after.{leaf}'),
        Row(_BLOCK + 'mlp.fc1.{leaf}', _HF_BLOCK + 'intermediate.dense.{leaf}'),
        Row(_BLOCK + 'mlp.fc2.{leaf}', _HF_BLOCK + 'output.dense.{leaf}'),
        Row('layers.{i}.downsample.{rest}', 'encoder.layers.{i}.downsample.{rest}'),
        Row('norm{last}.{leaf}', 'layernorm.{leaf}'),
    ),
    extras=(('embeddings.mask_token', _MASK_TOKEN),),
)

# Stages are the odd features, mergings the even ones; 0 is the patch embedding.
_TV_BLOCK = 'features.{2i+1}.{j}.'
TORCHVISION = Layout(
    name='torchvision',
    stem='features.0.0.weight',
    table=(
        Row('patch_embed.proj.{leaf}', 'features.0.0.{leaf}'),
        Row('patch_embed.norm.{leaf}', 'features.0.2.{leaf}'),
        Row(
            (_BLOCK + 'attn.q_bias', _BLOCK + 'attn.v_bias'),
            _TV_BLOCK + 'attn.qkv.bias',
            Conversion(_biases_of_merged, _merged_bias),
        ),
        Row(_BLOCK + 'attn.{rest}', _TV_BLOCK + 'attn.{rest}'),
        Row(_BLOCK + 'norm{n}.{leaf}', _TV_BLOCK + 'norm{n}.{leaf}'),
        Row(_BLOCK + 'mlp.fc1.{leaf}', _TV_BLOCK + 'mlp.0.{leaf}'),
        Row(_BLOCK + 'mlp.fc2.{leaf}', _TV_BLOCK + 'mlp.3.{leaf}'),
        Row('layers.{i}.downsample.{rest}', 'features.{2i+2}.{rest}'),
        _FINAL_NORM,
    ),
    extras=(HEAD,),
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        OWN,
        OFFICIAL,
        TIMM,
        TIMM_FEATURES,
        MMPRETRAIN,
        HUGGINGFACE,
        TORCHVISION,
        MINDSPORE,
    )
}
