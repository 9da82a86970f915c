"""Handle errors of kernels: warn once, and compute the same result in another way.

A compiler that does not know a GPU must not end a training. Errors of memory, and those that leave
the device unusable, are raised as they are.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar('Result')

# Kernels that have raised an error in this process; they are not tried again.
_failed: set[str] = set()
# Global, not per thread: autograd runs backward in threads of its own.
_are_raised = False


@contextmanager
def errors_raised() -> Iterator[None]:
    """Raise the errors of kernels within a ``with``, to find out which kernels fail."""
    global _are_raised
    before, _are_raised = _are_raised, True
    try:
        yield
    finally:
        _are_raised = before


@functools.lru_cache
def log_once(message: str) -> None:
    """Log a warning the first time that it is given."""
    logging.getLogger('swinv2_mm').warning(message)


def fall_back(name: str, reason: str) -> None:
    """Log once that a backend gives way to ``sdpa``."""
    # A logger would break the graph of torch.compile.
    if not torch.compiler.is_compiling():
        log_once(f"attention '{name}' falls back to 'sdpa': {reason}")


def run_or(
    name: str, launch: Callable[[], Result], otherwise: Callable[[], Result], *, of: str
) -> Result:
    """Run the first function, or the second one where the first has raised an error once.

    Args:
        name: What is tried.
        launch: Tries it.
        otherwise: Gives the same result.
        of: The backend, for the warning.
    """
    if _are_raised:
        return launch()
    if name in _failed:
        return otherwise()
    if torch.compiler.is_compiling():
        return launch()
    try:
        return launch()
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        _failed.add(name)
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        log_once(f"attention '{of}' runs {name} another way, slower, as it failed: {reason}")
        return otherwise()


def gradients_or_defined(
    name: str,
    launch: Callable[[], tuple[Tensor, ...]],
    defined: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    needed: Sequence[bool],
    d_out: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of an operator, within its backward pass.

    Args:
        name: The backend.
        launch: Computes them.
        defined: Computes the output from the inputs by operations that autograd knows. Its
            gradients are taken where ``launch`` has failed, and where second ones are wanted.
        inputs: Inputs of the operator that can have a gradient.
        needed: Which of them need one.
        d_out: The gradient of the output.
    """
    create_graph = torch.is_grad_enabled()

    def by_definition() -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            leaves = inputs if create_graph else [x.detach().requires_grad_() for x in inputs]
            out = defined(*leaves)
        wanted = [x for x, is_needed in zip(leaves, needed, strict=True) if is_needed]
        found = iter(torch.autograd.grad(out, wanted, d_out, create_graph=create_graph))
        return tuple(next(found) if is_needed else None for is_needed in needed)

    if create_graph:
        return by_definition()
    return run_or(f'{name} (gradient)', launch, by_definition, of=name)
