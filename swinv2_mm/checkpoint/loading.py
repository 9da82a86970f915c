"""Load weights of any known layout into a backbone."""

from __future__ import annotations

import os

import torch
from torch import nn

from swinv2_mm.core import SwinTransformerV2

from .errors import CheckpointError
from .fitting import fit_backbone
from .heads import HeadWeights, find_head, fit_head
from .layout import Layout
from .load_report import LoadReport
from .reading import Source, Weights, open_weights
from .recognition import recognise
from .rules import Translation, translate


def load_pretrained(
    model: nn.Module, source: Source, *, class_map: str | os.PathLike[str] | None = None
) -> LoadReport:
    """Load weights in any layout that ``LAYOUTS`` lists into the backbone of a model.

    The window that the weights were trained at is taken from them, the window that they are
    used at from the model. Another number of input channels or another patch size is made up
    for, and a model that is a classifier gets the weights' head if it has as many classes; the
    report lists it. All is checked before the first parameter changes.

    Args:
        model: A ``SwinTransformerV2``, or a module that holds exactly one.
        source: Path of a ``.safetensors``, PyTorch or MindSpore file, a URL of one, the name of a
            released model (``swinv2_mm.checkpoint.RELEASED``), a folder of Hugging Face, or a
            state dict, as it is or inside what a training program saves.
        class_map: Text file that says, for each class of the model, which class of the weights'
            head it is, or ``imagenet22k-to-1k``, the official map, which released ImageNet-22K
            models get without being asked in a model of 1,000 classes.

    Raises:
        CheckpointError: If the source cannot be read without running code, is not a SwinV2,
            does not fit the model, or does not tell the window it was trained at while the
            model's ``pretrained_window_sizes`` does not either. The model is then unchanged.
        ValueError: If ``model`` does not hold exactly one backbone.
    """
    backbone = find_backbone(model)
    if any(parameter.is_meta for parameter in backbone.parameters()):
        raise ValueError('the model is on the meta device: call to_empty() before loading')
    head = None if model is backbone else find_head(model)
    if class_map is not None and head is None:
        raise ValueError(f'a class map was given, but {type(model).__name__} has no linear head')
    weights = open_weights(source)
    try:
        return _load(backbone, weights, head=head, class_map=class_map)
    except CheckpointError as error:
        raise CheckpointError(f'{weights.origin}: {error}') from None


def find_backbones(model: nn.Module) -> list[SwinTransformerV2]:
    """Return all backbones that a model is or holds."""
    return [module for module in model.modules() if isinstance(module, SwinTransformerV2)]


def find_backbone(model: nn.Module) -> SwinTransformerV2:
    """Return the one backbone that a model is or holds.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = find_backbones(model)
    if len(found) != 1:
        raise ValueError(
            f'{type(model).__name__} holds {len(found) or "no"} SwinTransformerV2 backbones; '
            'exactly one is needed'
        )
    return found[0]


def _load(
    backbone: SwinTransformerV2,
    weights: Weights,
    *,
    head: tuple[str, nn.Linear] | None,
    class_map: str | os.PathLike[str] | None,
) -> LoadReport:
    layout, prefix = recognise(weights.tensors)
    dropped = dict(weights.dropped)
    head_weights = HeadWeights()
    if head is not None:
        head_weights = fit_head(
            weights.tensors,
            prefix=prefix,
            head=head,
            class_map=class_map,
            is_released=weights.is_released,
        )
        dropped |= head_weights.dropped
    handled = {*head_weights.origins.values(), *head_weights.dropped}
    translation = _translate(weights, layout=layout, prefix=prefix, backbone=backbone)
    own = translation.values
    unexpected = []
    for name in translation.unmatched:
        if name in handled:
            continue
        reason = _reason_to_drop(name, layout=layout, prefix=prefix)
        if reason is None:
            unexpected.append(name)
        else:
            dropped[name] = reason

    fit = fit_backbone(
        own,
        backbone=backbone,
        layout=layout,
        declared=weights.declared_window_sizes,
        unexpected=unexpected,
    )
    for name, reason in fit.dropped.items():
        dropped |= dict.fromkeys(translation.origins[name], reason)
    backbone.set_pretrained_window_sizes(fit.pretrained_window_sizes)
    backbone.set_numerics(fit.numerics)
    targets = dict(backbone.named_parameters())
    if head is not None:
        own_name, module = head
        targets |= {f'{own_name}.{leaf}': value for leaf, value in module.named_parameters()}
    with torch.no_grad():
        for name, value in (fit.ready | head_weights.values).items():
            targets[name].copy_(value)
    renamed: dict[str, tuple[str, ...]] = {}
    for name in fit.ready:
        for origin in translation.origins[name]:
            if origin != name:
                renamed[origin] = (*renamed.get(origin, ()), name)
    for name, origin in head_weights.origins.items():
        if origin != name:
            renamed[origin] = (name,)
    return LoadReport(
        layout=layout.name,
        loaded=(*fit.ready, *head_weights.values),
        renamed=renamed,
        dropped=dropped,
        missing=fit.missing | head_weights.missing,
        adapted=fit.adapted | head_weights.adapted,
        pretrained_window_sizes=fit.pretrained_window_sizes,
        numerics=fit.numerics,
    )


def _translate(
    weights: Weights, *, layout: Layout, prefix: str, backbone: SwinTransformerV2
) -> Translation:
    """Give the weights our names; those outside the backbone are unmatched."""
    inside = {
        name.removeprefix(prefix): value
        for name, value in weights.tensors.items()
        if name.startswith(prefix)
    }
    rules = layout.reading_rules(num_stages=len(backbone.layers))
    result = translate(inside, rules=rules)
    outside = [name for name in weights.tensors if not name.startswith(prefix)]
    return Translation(
        result.values,
        {
            name: tuple(prefix + origin for origin in origins)
            for name, origins in result.origins.items()
        },
        [prefix + name for name in result.unmatched] + outside,
    )


def _reason_to_drop(name: str, *, layout: Layout, prefix: str) -> str | None:
    if not name.startswith(prefix):
        return 'not part of the backbone'
    inner = name.removeprefix(prefix)
    return next((what for start, what in layout.extras if inner.startswith(start)), None)
