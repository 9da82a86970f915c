"""How many classes a model tells apart."""

from __future__ import annotations

from torch import nn


def num_classes_of(model: nn.Module) -> int:
    """Most classes that any part says it tells apart (an RPN says 1); 0 if none says so."""
    counts = [getattr(module, 'num_classes', None) for module in model.modules()]
    return max((c for c in counts if isinstance(c, int)), default=0)
