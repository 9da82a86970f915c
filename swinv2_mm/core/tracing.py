"""Decide when our own operators give way to torch's: hooks, wrappers, transforms and tracers.

The fast paths bypass modules (a product by oneDNN together with its activation) or autograd
(attention with its own gradient). A program that wraps modules, differentiates twice or records a
graph needs modules that are called, and operators that every tool of torch knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeGuard, TypeVar, cast

import torch
from torch import Tensor, fx, nn

from .torch_private import (
    FakeTensor,
    has_active_transform,
    has_global_hooks,
    has_hooks,
    is_jit_tracing,
    is_recording,
)

P = ParamSpec('P')
First = TypeVar('First')
Result = TypeVar('Result')


def is_traced(*values: object) -> bool:
    """Whether a tracer or a transform, other than ``torch.compile``, follows the operations.

    Tracers are ``jit.trace``, ``fx.symbolic_trace`` and ``make_fx``; transforms those of
    ``torch.func`` and forward-mode differentiation. Fake tensors record nothing and do not count.

    Args:
        values: What is computed with; a subclass of ``Tensor`` follows its operations itself.
    """
    if torch.compiler.is_compiling():
        return False
    for value in values:
        if type(value) not in (Tensor, nn.Parameter, FakeTensor):
            return True
    return is_jit_tracing() or has_active_transform() or is_recording()


def is_called_as_made(module: nn.Module) -> bool:
    """Whether a call of a module is the ``forward`` of its class and nothing more."""
    return 'forward' not in module.__dict__ and not has_hooks(module) and not has_global_hooks()


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is ``nn.Linear`` as torch made it, so that its weight says all about it.

    Not one that was quantised, parametrised, pruned or put into an adapter, and none with hooks.
    """
    return (
        type(layer) is nn.Linear
        and is_called_as_made(layer)
        and type(layer.weight) in (nn.Parameter, Tensor, FakeTensor)
    )


def fx_leaf(
    function: Callable[Concatenate[First, P], Result],
) -> Callable[Concatenate[First, P], Result]:
    """Make ``torch.fx`` record a function as one node: what asks for sizes cannot be traced."""

    @functools.wraps(function)
    def recorded(first: First, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        if isinstance(first, fx.Proxy):
            node = first.tracer.create_proxy('call_function', recorded, (first, *args), kwargs)
            return cast('Result', node)
        return function(first, *args, **kwargs)

    return recorded
