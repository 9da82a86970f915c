"""Unwrap a model from DDP, EMA and ``torch.compile``."""

from __future__ import annotations

from torch import nn

# The only child of a wrapper: of ``torch.compile``; of FSDP; of activation checkpointing.
WRAPPED = ('_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module')
# Also the child of DDP, DataParallel, averaged models (EMA) and MMEngine's wrappers.
_INNER = {'module', *WRAPPED}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return a model without its wrappers, however many there are."""
    while len(children := dict(model.named_children())) == 1 and _INNER & children.keys():
        (model,) = children.values()
    return model
