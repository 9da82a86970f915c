"""Define the weight layouts: one table of parameter names for each.

Our names are the official ones, except for the output norms ``norm0`` to ``norm3``. In a table,
``{last}`` is the index of the last stage, whose norm classification models call ``norm``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swinv2_mm.core.numerics import NUMERICS_ENTRY, NumericsName

from .rules import UNCHANGED, Conversion, Rule, Template
from .stem import STEM

# The name of the buffer that says which windows the position bias was trained at.
WINDOWS_BUFFER = 'pretrained_window_sizes'


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        own: Our name, or names.
        foreign: The layout's name, or names.
        conversion: How values change.
        with_write: Whether the row is used for writing too, not only for reading.
    """

    own: str | tuple[str, ...]
    foreign: str | tuple[str, ...]
    conversion: Conversion = UNCHANGED
    with_write: bool = True


@dataclass(frozen=True)
class Layout:
    """A way to name and arrange the weights.

    Attributes:
        name: Its name, as in ``LAYOUTS``.
        stem: Name of the patch embedding's weight. What precedes it in a file is the prefix of
            the whole backbone.
        table: Rows in order; the first that covers a name counts.
        has_final_norm: Whether such weights have a norm after the last stage.
        extras: Beginnings of names that are known but not part of the backbone, with what they
            are. (Names outside the backbone's prefix need no entry.)
        numerics: Those that such weights were trained with, unless they say otherwise.
    """

    name: str
    stem: str
    table: tuple[Row, ...]
    extras: tuple[tuple[str, str], ...] = ()
    has_final_norm: bool = True
    numerics: NumericsName = 'official'

    def reading_rules(self, *, num_stages: int) -> tuple[Rule, ...]:
        """Return the rules from this layout to our names."""
        return _compiled(self.table, num_stages=num_stages, writing=False)

    def writing_rules(self, *, num_stages: int) -> tuple[Rule, ...]:
        """Return the rules from our names to this layout."""
        return _compiled(self.table, num_stages=num_stages, writing=True)


@lru_cache(maxsize=64)
def _compiled(table: tuple[Row, ...], *, num_stages: int, writing: bool) -> tuple[Rule, ...]:
    def templates(names: str | tuple[str, ...]) -> tuple[Template, ...]:
        names = (names,) if isinstance(names, str) else names
        return tuple(Template(name.replace('{last}', str(num_stages - 1))) for name in names)

    rules = []
    for row in table:
        own, foreign = templates(row.own), templates(row.foreign)
        if not writing:
            rules.append(Rule(foreign, own, row.conversion.read))
        elif row.with_write:
            rules.append(Rule(own, foreign, row.conversion.write))
    return tuple(rules)


# --- values that are arranged differently -------------------------------------------------------


def _merging_from_unfold(weight: Tensor) -> tuple[Tensor]:
    # nn.Unfold: channel slowest, then row, then column of the 2x2. Official: column, row,
    # channel (top left, bottom left, top right, bottom right).
    return (weight.unflatten(1, (-1, 2, 2)).permute(0, 3, 2, 1).flatten(1),)


def _merging_to_unfold(weight: Tensor) -> tuple[Tensor]:
    return (weight.unflatten(1, (2, 2, -1)).permute(0, 3, 2, 1).flatten(1),)


def _merged_qkv(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor]:
    return (torch.cat((query, key, value)),)


def _separate_qkv(qkv: Tensor) -> tuple[Tensor, ...]:
    return qkv.unflatten(0, (3, -1)).unbind()


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
_HEAD = ('head.', 'classification head')
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
    extras=(_HEAD,),
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
    extras=(_HEAD, ('mask_token', _MASK_TOKEN)),
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
    extras=(_HEAD,),
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
    extras=(_HEAD,),
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
            Conversion(_merged_qkv, _separate_qkv),
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
    extras=(_HEAD,),
)

# Read only. How MindSpore numbers MindCV's cells: the first stage has one number less.
_MS_STAGES = (
    ('layers.{i}.', 'layers.{i}.'),
    ('layers.{i}.', '0.blocks.{i}.'),
    ('layers.0.', '0.'),
)


def _mindspore_norm(own: str, foreign: str) -> tuple[Row, Row]:
    return Row(f'{own}.weight', f'{foreign}.gamma'), Row(f'{own}.bias', f'{foreign}.beta')


def _mindspore_stage(own: str, foreign: str) -> tuple[Row, ...]:
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
        Row(block + 'attn.qkv.weight', qkv, Conversion(_merged_qkv, _separate_qkv)),
        *(Row(ours, name) for ours, name in renamed.items()),
        *_mindspore_norm(block + 'norm{n}', theirs + 'norm{n}'),
        *_mindspore_norm(own + 'downsample.norm', foreign + 'downsample.norm'),
    )


MINDSPORE = Layout(
    name='mindspore',
    stem=STEM,
    table=(
        Row('patch_embed.proj.{leaf}', 'patch_embed.proj.{leaf}'),
        *_mindspore_norm('patch_embed.norm', 'patch_embed.norm'),
        *(row for stage in _MS_STAGES for row in _mindspore_stage(*stage)),
        *_mindspore_norm('norm{last}', 'norm'),
    ),
    extras=(_HEAD,),
    numerics='mindspore',
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
