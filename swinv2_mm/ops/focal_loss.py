"""Sigmoid focal loss (Lin et al., 2017), which mmdet's heads compute with the op on CUDA only.

Written in the margin, the logit signed so that positive is right: the probability of the right
answer is ``sigmoid(margin)``, and its logarithm needs no clamp.

Shape letters: ``K`` predictions, ``C`` classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import compute_dtype


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every prediction and class to ``output``.

    Args:
        input: Logits.
        target: Class of each prediction; ``C`` stands for background, which is no class.
        weight: One per class, applied by the prediction's target class; empty for none.
        output: Written in place.
        gamma: Focusing exponent.
        alpha: Weight of positives; negatives get ``1 - alpha``.

    Shapes:
        input (K, C), target (K,), weight (C,) or (0,), output (K, C)
    """
    logits = input.to(compute_dtype(input))
    positive = _is_target(logits, target)
    margin = torch.where(positive, logits, -logits)
    loss = -(torch.sigmoid(-margin) ** gamma) * F.logsigmoid(margin)
    output.copy_(_weighted(loss, positive, target, weight, alpha=alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every loss by its logit to ``grad_input``.

    The arguments are those of :func:`sigmoid_focal_loss_forward`.

    Shapes:
        input (K, C), target (K,), weight (C,) or (0,), grad_input (K, C)
    """
    logits = input.to(compute_dtype(input))
    positive = _is_target(logits, target)
    margin = torch.where(positive, logits, -logits)
    wrong = torch.sigmoid(-margin)
    slope = wrong**gamma * (gamma * (1 - wrong) * F.logsigmoid(margin) - wrong)
    slope = torch.where(positive, slope, -slope)
    grad_input.copy_(_weighted(slope, positive, target, weight, alpha=alpha))


def _is_target(logits: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(logits.shape[1], device=logits.device)


def _weighted(
    values: Tensor, positive: Tensor, target: Tensor, weight: Tensor, *, alpha: float
) -> Tensor:
    """``values`` times ``alpha`` or its complement, times the class weight."""
    values = torch.where(positive, alpha * values, (1 - alpha) * values)
    if weight.numel():
        # Background has no entry (the compiled op reads past the end of the table): it weighs 1.
        values = values * F.pad(weight, (0, 1), value=1.0)[target][:, None]
    return values
