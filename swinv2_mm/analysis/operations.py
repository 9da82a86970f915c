"""Count the operations that run: every matrix product, convolution and attention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from swinv2_mm.core.torch_private import attention_on_cpu

from .fake_model import KnownValues
from .fixed_cost import FixedCost


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


# torch before 2.15 does not count the attention of a CPU.
_FORMULAS = {attention_on_cpu: _attention_flops}


def count_macs(network: FixedCost, images: Tensor) -> Counter[str]:
    """Count the multiply-accumulates of one inference, in total and per module.

    Counted by shape at the level of torch's operators, so that nothing is missed however it is
    called: padding of windows, the bias network, every head. Elementwise work (norms, softmax,
    activations) and sampling (RoIAlign, deformable attention's gathering) are no products.

    Args:
        network: The model to run, fake or real; it is put into eval.
        images: A batch; the count is for all of it.

    Returns:
        Counts by module name inside the model; the empty name has the total.
    """
    network.train(False)
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    with torch.no_grad(), KnownValues(), counter:
        network(images)
    prefix = f'{type(network).__name__}.model.'
    macs = Counter({'': counter.get_total_flops() // 2})
    for name, operators in counter.get_flop_counts().items():
        if name.startswith(prefix):
            # torch counts a multiply-accumulate as two.
            macs[name[len(prefix) :]] = sum(operators.values()) // 2
    return macs
