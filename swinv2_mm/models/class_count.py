"""Count the classes of a model."""

from __future__ import annotations

from torch import nn


def num_classes_of(model: nn.Module) -> int:
    """Return the largest ``num_classes`` of any head (an RPN has 1); 0 if no head has one."""
    counts = [getattr(module, 'num_classes', None) for module in model.modules()]
    return max((c for c in counts if isinstance(c, int)), default=0)
