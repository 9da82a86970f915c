"""Find the linear classification head in a model and in a file, and load one into the other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from .class_map import read_class_map, released_class_map
from .errors import CheckpointError
from .fitting import ready_value

# mmpretrain and timm; the official code, torchvision and timm before 0.9; Hugging Face.
_NAMES = ('head.fc', 'head', 'classifier')


@dataclass
class HeadWeights:
    """The result of fitting a classification head; see ``fit_head``.

    Attributes:
        values: Tensors by the model's own names, ready to be copied.
        origins: The name in the file of each.
        dropped: Names in the file that are not used, with the reason.
        missing: Names in the model that keep their values, with the reason.
        adapted: Names in the model whose values were changed on the way, with what was done.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)


def find_head(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return the classification head of a model and its name, if it has one."""
    modules = dict(model.named_modules())
    for name in _NAMES:
        if isinstance(modules.get(name), nn.Linear):
            return name, modules[name]
    return None


def head_in(weights: Mapping[str, Tensor], *, prefix: str) -> str | None:
    """Return the name of the head in a file, beside the backbone or around it.

    Args:
        weights: All tensors of the file.
        prefix: Prefix of the names of the backbone.
    """
    around = prefix[: prefix.rstrip('.').rfind('.') + 1]
    for name in (start + name for start in dict.fromkeys((prefix, around)) for name in _NAMES):
        weight = weights.get(f'{name}.weight')
        if weight is not None and weight.ndim == 2:
            return name
    return None


def fit_head(
    weights: Mapping[str, Tensor],
    *,
    prefix: str,
    head: tuple[str, nn.Linear],
    class_map: str | os.PathLike[str] | None = None,
    is_released: bool = False,
) -> HeadWeights:
    """Prepare the head of a file for that of a model.

    Args:
        weights: All tensors of the file.
        prefix: Prefix of the names of the backbone.
        head: Head of the model, from ``find_head``.
        class_map: Text file with one line for each class of the model: the number of that class
            in the file's head, or ``imagenet22k-to-1k``.
        is_released: Whether the weights are a released model's, whose classes are known: those of
            ImageNet-1K are then found in a head of ImageNet-22K without a class map.

    Raises:
        CheckpointError: If the class map does not fit, or the head has unusable values.
    """
    own_name, module = head
    own = {f'{own_name}.{leaf}': value for leaf, value in module.named_parameters()}
    found = head_in(weights, prefix=prefix)
    if found is None:
        if class_map is not None:
            raise CheckpointError('a class map was given, but the weights have no head')
        return HeadWeights(missing=dict.fromkeys(own, 'the weights have no classification head'))
    theirs = {
        f'{own_name}.{leaf}': f'{found}.{leaf}'
        for leaf in ('weight', 'bias')
        if f'{found}.{leaf}' in weights
    }
    num_classes = weights[theirs[f'{own_name}.weight']].shape[0]
    result = HeadWeights(origins=theirs)
    chosen = None
    if class_map is None and is_released:
        class_map = released_class_map(num_known=num_classes, num_wanted=module.out_features)
    if class_map is not None:
        chosen = read_class_map(class_map, num_known=num_classes, num_wanted=module.out_features)
        how = f'{module.out_features} of {num_classes} classes, by {class_map}'
        result.adapted = dict.fromkeys(own, how)
    elif num_classes != module.out_features:
        reason = f'the weights have {num_classes} classes, the model {module.out_features}'
        return HeadWeights(
            dropped=dict.fromkeys(theirs.values(), f'classification head: {reason}'),
            missing=dict.fromkeys(own, f'{reason}: the head keeps its start'),
        )
    if theirs.keys() != own.keys():
        with_bias = 'the weights' if len(theirs) > len(own) else 'the model'
        raise CheckpointError(f'only the head of {with_bias} has a bias')
    for name, target in own.items():
        value = weights[theirs[name]]
        value = value if chosen is None else value[chosen.to(value.device)]
        if value.shape != target.shape:
            raise CheckpointError(
                f'{theirs[name]} has the shape {tuple(value.shape)} in the weights, '
                f'{tuple(target.shape)} in the model'
            )
        result.values[name] = ready_value(theirs[name], value, target=target)
    return result
