"""The steps of mmcv's synchronised batch normalisation; mmcv itself sums over the processes.

Shape letters: ``B`` images, ``C`` channels, ``L`` pixels.
"""

from __future__ import annotations

from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Write the mean of each channel.

    Shapes:
        input (B, C, L), mean (C,)
    """
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write the mean squared distance from ``mean``.

    Shapes:
        input (B, C, L), mean and var (C,)
    """
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: float | Tensor,
    group_size: int,
) -> None:
    """Write the normalised map, what backward needs of it, and the running statistics.

    Shapes:
        input, norm and output (B, C, L); the others (C,)
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    running_mean += momentum * (mean - running_mean)
    running_var += momentum * (var * (count / max(count - 1, 1)) - running_var)


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Write the gradients of weight and bias.

    Shapes:
        grad_output and norm (B, C, L), grad_weight and grad_bias (C,)
    """
    grad_weight.copy_((grad_output * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Write the gradient of the map, whose mean and variance depend on it.

    Shapes:
        grad_output, norm and grad_input (B, C, L); the others (C,)
    """
    count = grad_output.shape[0] * grad_output.shape[2]
    through_statistics = (norm * grad_weight[:, None] + grad_bias[:, None]) / count
    grad_input.copy_((grad_output - through_statistics) * (weight / std)[:, None])
