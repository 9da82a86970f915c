"""Linear layers, on a CPU through the faster of the two matrix libraries (``cpu_kernels``).

The layers are ``nn.Linear``. The functions here call them as modules wherever somebody might look:
see ``tracing``.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cpu_kernels import Product, cpu_rule
from .torch_private import foreach_copy, onednn_linear
from .tracing import is_plain, is_traced


def _runs_onednn(x: Tensor, weight: Tensor, *, product: Product = 'output') -> bool:
    return bool(
        # First: what follows would break the graph, and torch's compiler knows F.linear.
        not torch.compiler.is_compiling()
        and product in cpu_rule().onednn
        # Before x is looked at, which jit.trace would record.
        and not is_traced(x, weight)
        # Fake tensors are for tools, which know F.linear.
        and type(x) is Tensor
        and x.device.type == 'cpu'
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and onednn_linear is not None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled('cpu')
    )


class _OneDnn(torch.autograd.Function):
    """The three products of a linear layer: output, gradient of the input, of the weight."""

    # With a setup_context, apply() would inspect the signature at every call.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_linear(x, weight, bias, 'none', [], '')

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        d_x = d_weight = d_bias = None
        if ctx.needs_input_grad[0]:
            d_x = _product(d_out, weight.t(), kind='input_gradient')
        x, d_out = x.flatten(0, -2), d_out.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            # oneDNN copies its first operand where that is transposed, and autograd a transposed
            # gradient. The cheaper copies are taken: with few tokens those of d_out.
            (tokens, n), k = d_out.shape, x.shape[1]
            if tokens * n <= tokens * k + n * k:
                d_weight = _product(d_out.t(), x.t(), kind='weight_gradient')
            else:
                d_weight = _product(x.t(), d_out.t(), kind='weight_gradient').t()
        if ctx.needs_input_grad[2]:
            d_bias = d_out.sum(0)
        return d_x, d_weight, d_bias


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if torch.is_grad_enabled():
        return _OneDnn.apply(x, weight, bias)
    return onednn_linear(x, weight, bias, 'none', [], '')


def _product(x: Tensor, weight: Tensor, *, kind: Product) -> Tensor:
    """``F.linear`` without a bias: (..., C_in), (C_out, C_in) -> (..., C_out)."""
    if _runs_onednn(x, weight, product=kind):
        return _by_onednn(x, weight, None)
    return F.linear(x, weight)


class _Cast(torch.autograd.Function):
    """Cast tensors in one launch, and their gradients in another."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        *tensors, dtype = arguments
        ctx.set_materialize_grads(False)
        ctx.dtype = tensors[0].dtype
        casts = _written_as(dtype, tensors)
        # Else the gradient of a frozen weight would be computed.
        needed = zip(casts, ctx.needs_input_grad[:-1], strict=True)
        ctx.mark_non_differentiable(*(cast for cast, is_needed in needed if not is_needed))
        return casts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_cast([g for g in grads if g is not None], dtype=ctx.dtype))
        return *(None if g is None else next(found) for g in grads), None


def _written_as(dtype: torch.dtype, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    casts = tuple(torch.empty_like(x, dtype=dtype) for x in tensors)
    foreach_copy(casts, tensors)
    return casts


def _cast(tensors: list[Tensor], *, dtype: torch.dtype) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled():
        return _Cast.apply(*tensors, dtype)
    return _written_as(dtype, tensors)


def _casts_together(x: Tensor) -> bool:
    # Elsewhere torch casts a list one by one.
    return (
        x.device.type == 'cuda'
        and torch.is_autocast_enabled('cuda')
        and not torch.compiler.is_compiling()
    )


def _by_torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``; what autocast would cast on CUDA in a launch each is cast in one."""
    operands = [x, weight, bias]
    if _casts_together(x):
        wide = {i: t for i, t in enumerate(operands) if t is not None and t.dtype == torch.float32}
        if len(wide) > 1:
            casts = _cast(list(wide.values()), dtype=torch.get_autocast_dtype(x.device.type))
            for i, cast in zip(wide, casts, strict=True):
                operands[i] = cast
    return F.linear(*operands)  # type: ignore[arg-type]


def linear(layer: nn.Module, x: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer.

    Args:
        layer: ``nn.Linear``, or what was put in its place.
        bias: Added to the result, for a layer without one of its own.

    Shapes:
        x (..., C_in), bias (C_out) -> (..., C_out)
    """
    if is_plain(layer):
        whole = layer.bias if bias is None else bias
        if _runs_onednn(x, layer.weight):
            return _by_onednn(x, layer.weight, whole)
        if not is_traced(x):
            return _by_torch(x, layer.weight, whole)
    out = layer(x)
    # Autocast computes in half precision: the sum keeps that.
    return out if bias is None else out + bias.to(out.dtype)


def linear_gelu(
    layer: nn.Module, x: Tensor, *, approximate: Literal['none', 'tanh'] = 'none'
) -> Tensor:
    """Apply a linear layer and GELU; without a gradient in one pass of oneDNN, or in place.

    Args:
        layer: See ``linear``.
        approximate: As torch's GELU takes it.

    Shapes:
        (..., C_in) -> (..., C_out)
    """
    if not torch.is_grad_enabled() and is_plain(layer):
        if _runs_onednn(x, layer.weight):
            return onednn_linear(x, layer.weight, layer.bias, 'gelu', [], approximate)
        if not is_traced(x):
            out = _by_torch(x, layer.weight, layer.bias)
            return torch.ops.aten.gelu_(out, approximate=approximate)
    return F.gelu(linear(layer, x), approximate=approximate)
