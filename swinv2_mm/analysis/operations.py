"""Count the operations that run: every matrix product, convolution and attention."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .fake_model import KnownValues
from .fixed_cost import FixedCost


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
    with torch.no_grad(), KnownValues(), FlopCounterMode(display=False) as counter:
        network(images)
    prefix = f'{type(network).__name__}.model.'
    macs = Counter({'': counter.get_total_flops() // 2})
    for name, operators in counter.get_flop_counts().items():
        if name.startswith(prefix):
            # torch counts a multiply-accumulate as two.
            macs[name[len(prefix) :]] = sum(operators.values()) // 2
    return macs
