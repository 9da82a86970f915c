"""Find the tensors of a model whose shapes depend on its number of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from swinv2_mm.models.class_count import class_counts

# Parts of a model that count other things than classes, such as the anchors of an RPN.
_OTHERS = ('backbone', 'rpn_head')


@dataclass(frozen=True)
class ClassHeads:
    """The parts of heads whose number of classes differs between weights and a model.

    Attributes:
        names: All tensors of these parts.
        num_saved: Classes of the weights.
        num_wanted: Classes of the model.
    """

    names: tuple[str, ...]
    num_saved: int
    num_wanted: int


def find_class_heads(saved: Mapping[str, Any], model: nn.Module) -> ClassHeads | None:
    """Find the parts of heads by which weights differ from a model: see ``differing_heads``.

    Args:
        saved: Weights under the model's names.
        model: Unwrapped.
    """
    counts = {count for count in class_counts(model) if count > 0}
    shapes = {name: getattr(value, 'shape', None) for name, value in saved.items()}
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    # An RPN says 1; a semantic branch has classes of its own.
    for count in sorted(counts - {1} or counts, reverse=True):
        if found := differing_heads(shapes, wanted, num_classes=count):
            return found
    return None


def differing_heads(
    saved: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size], *, num_classes: int
) -> ClassHeads | None:
    """Find the parts of heads that differ by the number of classes, and by nothing else.

    The first side of such a tensor is the number of classes, perhaps with one for the background,
    or a multiple, as for boxes or anchors of each class.

    Args:
        saved: Shapes of the weights, under the model's names.
        wanted: Shapes of the model.
        num_classes: Number of classes of the model.

    Returns:
        ``None`` if no shape differs, or one of them differs by something else.
    """
    differing = [n for n, shape in wanted.items() if n in saved and saved[n] != shape]
    possible: set[int] | None = None
    for name in differing:
        if any(part in _OTHERS for part in name.split('.')) or not wanted[name]:
            return None
        if not saved[name] or saved[name][1:] != wanted[name][1:]:
            return None
        found = _class_counts(saved[name][0], wanted[name][0], num_classes=num_classes)
        possible = found if possible is None else possible & found
    if not possible:
        return None
    parts = {name.rpartition('.')[0] for name in differing}
    names = tuple(n for n in wanted if n in saved and n.rpartition('.')[0] in parts)
    return ClassHeads(names, num_saved=max(possible), num_wanted=num_classes)


def _class_counts(saved: int, wanted: int, *, num_classes: int) -> set[int]:
    """Return the numbers of classes that explain how a side of the weights differs."""
    found = set()
    for background in (0, 1):
        times, rest = divmod(wanted, num_classes + background)
        if times > 0 and rest == 0 and saved % times == 0:
            found.add(saved // times - background)
    return {count for count in found if count > 0}
