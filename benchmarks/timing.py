"""Interleaved timing of several candidates, so that a drift of the machine affects all alike."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .backbones import CannotRun
from .memory_use import MemoryUse, measure_memory

# A sample takes at least this long: a GPU's queue and the clock's steps do not count then.
_MIN_SAMPLE_S = 0.05
# A first step of this length tells enough of the others.
_LONG_S = 2.0


@dataclass(frozen=True)
class Candidate:
    """One way to compute the result.

    Attributes:
        step: What is timed: a forward pass or a training step; may return a result to compare.
        forward: The first part of a training step, or ``step`` itself; for the memory.
        model: What runs in it; ``None`` if its memory is of no interest.
        is_compiled: Whether it runs as a whole, so that its tensors cannot be followed.
    """

    step: Callable[[], Tensor | None]
    forward: Callable[[], object]
    model: nn.Module | None
    is_compiled: bool = False


@dataclass
class Outcome:
    """The measurements of one candidate.

    Attributes:
        name: Name of the candidate.
        reason: Why it dropped out, if it did.
        seconds: Time of a step, in each round.
        memory: Memory of a step.
        difference: Largest difference to the first candidate's result, relative to its largest
            value; ``None`` without a result of the same shape.
    """

    name: str
    reason: str | None = None
    seconds: list[float] = field(default_factory=list)
    memory: MemoryUse | None = None
    difference: float | None = None


@dataclass(frozen=True)
class Spread:
    """The quartiles of some figures."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Take the quartiles; a single figure is all three."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method='inclusive'))


def ratios(outcome: Outcome, *, base: Outcome) -> Spread | None:
    """Return how many times as long a candidate takes as ``base``, round by round."""
    if not outcome.seconds or not base.seconds:
        return None
    return Spread.of([a / b for a, b in zip(outcome.seconds, base.seconds, strict=True)])


def time_interleaved(
    builders: Mapping[str, Callable[[], Candidate]],
    *,
    device: torch.device,
    rounds: int,
    advance: Callable[[str], None] = lambda name: None,
) -> list[Outcome]:
    """Build, warm up and measure candidates; one that fails does not stop the others.

    Args:
        builders: Builders by name; the results of the others are compared with the first.
        device: Where they run.
        rounds: Samples of each. 0 measures memory only.
        advance: Called with a name after each part of the work: once per candidate, then once
            per candidate and round.
    """
    outcomes = {name: Outcome(name) for name in builders}
    running: dict[str, tuple[Candidate, int]] = {}
    reference: Tensor | None = None
    gc.collect()
    for name, build in builders.items():
        outcome = outcomes[name]

        def enter(outcome: Outcome = outcome, build: Callable = build) -> None:
            nonlocal reference
            before = _allocated(device)
            candidate = build()
            # The first step compiles, tunes and fills caches.
            start = time.perf_counter()
            result = candidate.step()
            _wait(device)
            first_seconds = time.perf_counter() - start
            if result is not None and reference is None:
                reference = result.detach().float().cpu()
            outcome.difference = _difference(result, reference)
            del result
            if candidate.model is not None:
                outcome.memory = measure_memory(
                    candidate.step,
                    forward=candidate.forward,
                    model=candidate.model,
                    device=device,
                    held=_allocated(device) - before,
                    with_tensors=not candidate.is_compiled,
                )
            repeats = 1
            if rounds and first_seconds < _LONG_S:
                seconds = _sample(candidate.step, repeats=1, device=device)
                repeats = max(1, math.ceil(_MIN_SAMPLE_S / max(seconds, 1e-6)))
            running[outcome.name] = candidate, repeats

        _guarded(outcome, enter, device=device)
        advance(name)
    names = list(outcomes)
    for turn in range(rounds):
        # Back and forth: who always follows the same one always finds its leavings in the cache.
        for name in names if turn % 2 == 0 else reversed(names):
            outcome = outcomes[name]
            if name in running:
                candidate, repeats = running[name]

                def add_sample(
                    outcome: Outcome = outcome, step: Callable = candidate.step, n: int = repeats
                ) -> None:
                    outcome.seconds.append(_sample(step, repeats=n, device=device))

                _guarded(outcome, add_sample, device=device)
                if outcome.reason:
                    outcome.seconds.clear()
                    del running[name], candidate
            advance(name)
    return list(outcomes.values())


def _sample(step: Callable[[], object], *, repeats: int, device: torch.device) -> float:
    """Return the seconds of one step."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == 'cuda' else 0


def _difference(result: Tensor | None, reference: Tensor | None) -> float | None:
    if result is None or reference is None or result.shape != reference.shape:
        return None
    return ((result.detach().float().cpu() - reference).abs().max() / reference.abs().max()).item()


def _guarded(outcome: Outcome, act: Callable[[], None], *, device: torch.device) -> None:
    """Act, and note whatever goes wrong, in the code of another implementation too."""
    try:
        act()
    except Exception as error:
        outcome.reason = _reason(error)
        # The traceback holds the tensors of the step that failed.
        error.__traceback__ = None
    if outcome.reason:
        gc.collect()
        if device.type == 'cuda':
            torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    if isinstance(error, CannotRun):
        return str(error)
    text = next((line for line in str(error).splitlines() if line.strip()), '')
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if is_memory or "can't allocate memory" in str(error) or 'could not create a memory' in text:
        return 'out of memory'
    return f'{type(error).__name__}: {text}'[:200]
