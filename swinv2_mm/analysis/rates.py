"""List and draw the learning rate and weight decay of each layer under a config."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from swinv2_mm.checkpoint.loading import find_backbone
from swinv2_mm.engine.config_errors import config_errors
from swinv2_mm.engine.parameter_rules import backbone_depth
from swinv2_mm.errors import UserError

from .canvas import COLOURS, new_figure, tidy
from .layers import layers_of, name_of

_MOST_TICKS = 32


class LayerRate(NamedTuple):
    """The optimizer's settings for one layer.

    Attributes:
        layer: ``stem``, ``2.1`` for a block, ``norms`` of the outputs, or a part of the head.
        rates: Learning rates of its trained parameters; empty if all are frozen.
        weight_decay: Decay of those that decay, 0 if none does.
        num_decayed: Trained numbers that decay.
        num_exempt: Trained numbers that do not.
        num_frozen: Numbers that are not trained.
    """

    layer: str
    rates: tuple[float, ...]
    weight_decay: float
    num_decayed: int
    num_exempt: int
    num_frozen: int


def layer_rates(cfg: Config) -> list[LayerRate]:
    """Return the learning rate and the decay of each layer, the backbone's first, by depth.

    Raises:
        UserError: If the config has no optimiser, or its model not one SwinV2 backbone.
    """
    if not cfg.get('model') or not cfg.get('optim_wrapper'):
        raise UserError('the config needs a model and an optim_wrapper')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with config_errors(cfg):
        model = MODELS.build(copy.deepcopy(cfg.model))
    try:
        backbone = find_backbone(model)
    except ValueError as error:
        raise UserError(str(error)) from error
    # Rates do not depend on the precision, and mixed precision asks for a GPU.
    wanted = ('constructor', 'paramwise_cfg', 'optimizer')
    wrapper = {key: copy.deepcopy(v) for key, v in cfg.optim_wrapper.items() if key in wanted}
    with config_errors(cfg):
        optimizer = build_optim_wrapper(model, {'type': 'OptimWrapper', **wrapper}).optimizer
    groups = {id(p): group for group in optimizer.param_groups for p in group['params']}
    place = next(name for name, module in model.named_modules() if module is backbone)
    prefix = f'{place}.' if place else ''

    names = ['stem', *map(name_of, layers_of(backbone)), 'norms']
    found: dict[str, list[nn.Parameter]] = {name: [] for name in names}
    for name, parameter in model.named_parameters():
        if name.startswith(prefix):
            layer = names[backbone_depth(name[len(prefix) :], backbone.arch.depths)]
        else:
            layer = name.partition('.')[0]
        found.setdefault(layer, []).append(parameter)
    return [_summed(name, parameters, groups) for name, parameters in found.items()]


def _summed(layer: str, parameters: Sequence[nn.Parameter], groups: dict[int, dict]) -> LayerRate:
    trained = [(p, groups[id(p)]) for p in parameters if p.requires_grad and id(p) in groups]
    decays = [group.get('weight_decay', 0.0) for _, group in trained]
    num_trained = sum(p.numel() for p, _ in trained)
    decayed = sum(p.numel() for (p, _), d in zip(trained, decays, strict=True) if d)
    return LayerRate(
        layer,
        tuple(sorted({group['lr'] for _, group in trained})),
        max(decays, default=0.0),
        decayed,
        num_trained - decayed,
        sum(p.numel() for p in parameters) - num_trained,
    )


def draw_rates(rates: Sequence[LayerRate], *, title: str) -> Figure:
    """Draw learning rate, weight decay and what it applies to, by layer."""
    figure = new_figure(width=min(6 + 0.22 * len(rates), 16), height=6.4)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    places = np.arange(len(rates))
    points = [(at, lr) for at, rate in zip(places, rates, strict=True) for lr in rate.rates]
    if points:
        at, lr = zip(*points, strict=True)
        top.plot(at, lr, 'o', color=COLOURS[0], markersize=5)
        top.vlines(at, 0, lr, color=COLOURS[0], linewidth=1.2)
    top.set_ylabel('peak learning rate')
    top.set_ylim(bottom=0)
    middle.bar(places, [rate.weight_decay for rate in rates], color=COLOURS[1], width=0.7)
    middle.set_ylabel('weight decay')
    totals = [max(r.num_decayed + r.num_exempt + r.num_frozen, 1) for r in rates]
    below = np.zeros(len(rates))
    for number, (field, label) in enumerate(
        [('num_decayed', 'decays'), ('num_exempt', 'does not decay'), ('num_frozen', 'is frozen')]
    ):
        share = np.array([100 * getattr(r, field) / t for r, t in zip(rates, totals, strict=True)])
        colour = (COLOURS[1], COLOURS[5], '0.6')[number]
        bottom.bar(places, share, bottom=below, color=colour, width=0.7, label=label)
        below += share
    bottom.set_ylabel('% of parameters')
    bottom.legend(loc='upper left', bbox_to_anchor=(1, 1), fontsize=9)
    step = -(-len(rates) // _MOST_TICKS)
    bottom.set_xticks(
        places[::step], [rate.layer for rate in rates][::step], rotation=60, ha='right',
        rotation_mode='anchor',
    )  # fmt: skip
    bottom.set_xlabel('layer: stage.block of the backbone, then the other parts of the model')
    for ax in (top, middle, bottom):
        tidy(ax)
    figure.suptitle(title)
    return figure
