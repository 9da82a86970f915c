"""Count the classes of a model."""

from __future__ import annotations

from torch import nn


def num_classes_of(model: nn.Module) -> int:
    """Return the largest number of classes of any part (an RPN says 1); 0 if none has one."""
    return max(class_counts(model), default=0)


def class_counts(model: nn.Module) -> set[int]:
    """Return the numbers of classes that the parts of a model say they tell apart."""
    counts = (getattr(module, 'num_classes', None) for module in model.modules())
    return {count for count in counts if isinstance(count, int)}
