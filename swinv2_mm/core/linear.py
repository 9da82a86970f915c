"""Linear layers that use the faster of oneDNN and MKL on a CPU.

``F.linear`` multiplies float32 with MKL, which keeps to AVX2 on processors of other makers. oneDNN,
which torch uses for bfloat16 and in compiled models, takes AVX-512 wherever it is: 2.3 times as
fast on a Zen 5. Both compute in plain float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .torch_private import onednn_linear


def _runs_onednn(x: Tensor, weight: Tensor) -> bool:
    return bool(
        # First: what follows would break the graph, and torch's compiler knows F.linear.
        not torch.compiler.is_compiling()
        # Fake and traced tensors are for tools, which know F.linear.
        and type(x) is Tensor
        and x.device.type == 'cpu'
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and onednn_linear is not None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled('cpu')
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


class _OneDnn(torch.autograd.Function):
    """The three products of a linear layer: output, gradient of the input, of the weight."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return onednn_linear(x, weight, bias, 'none', [], '')

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        d_x = d_weight = d_bias = None
        if ctx.needs_input_grad[0]:
            d_x = linear(d_out, weight.t())
        x, d_out = x.flatten(0, -2), d_out.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            # oneDNN copies its first operand where that is transposed: the narrower of the two.
            if d_out.shape[1] <= x.shape[1]:
                d_weight = linear(d_out.t(), x.t())
            else:
                d_weight = linear(x.t(), d_out.t()).t()
        if ctx.needs_input_grad[2]:
            d_bias = d_out.sum(0)
        return d_x, d_weight, d_bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: (..., C_in), (C_out, C_in), (C_out) -> (..., C_out)."""
    if not _runs_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _OneDnn.apply(x, weight, bias)
    return onednn_linear(x, weight, bias, 'none', [], '')


class Linear(nn.Linear):
    """``nn.Linear`` by ``linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        return linear(x, self.weight, self.bias)


class LinearGelu(Linear):
    """Linear and GELU, in one pass where oneDNN runs and no gradient is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        if torch.is_grad_enabled() or not _runs_onednn(x, self.weight):
            return F.gelu(super().forward(x))
        return onednn_linear(x, self.weight, self.bias, 'gelu', [], 'none')
