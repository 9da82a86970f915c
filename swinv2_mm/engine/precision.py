"""Train in bfloat16 mixed precision, on a CPU too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast; weights and updates stay in float32.

    bfloat16 has the range of float32, so that no loss is scaled. MMEngine's ``AmpOptimWrapper``
    refuses to be made without a GPU. Takes the arguments of ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enter autocast, beside what gradient accumulation needs."""
        device = torch.device(get_device()).type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
