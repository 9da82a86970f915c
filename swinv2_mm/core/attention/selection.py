"""Select a backend by proof: candidates are checked against a limit, timed, and remembered on disk.

Plain Python: what a candidate computes, the clock and the other processes are passed in
(``proof`` does so for attention on CUDA).
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

# A fourth run would add little: choices differ by tens of percent.
_NUM_RUNS = 3
# Another process asks rank 0 for its choice: how long until it has begun to measure, and how long
# that may take, compilation of kernels included.
_UNTIL_BEGUN_S, _UNTIL_CHOSEN_S = 10.0, 300.0
_BEGUN = 'measuring'
_FORMAT = 1


class Trial(NamedTuple):
    """How one candidate is checked and timed.

    Attributes:
        errors: Compute on a sample and return the error of each result.
        run: Compute what is timed.
    """

    errors: Callable[[], Sequence[float]]
    run: Callable[[], object]


class Peers(Protocol):
    """The processes of a distributed job."""

    # Number of this process; 0 decides.
    rank: int

    def publish(self, key: str, value: str) -> None:
        """Let other processes find a value."""

    def find(self, key: str, *, seconds: float) -> str | None:
        """Wait for a value that another process publishes; ``None`` if it does not in time."""


class Choice(NamedTuple):
    """The outcome of a selection.

    Attributes:
        name: Name of the fastest candidate that is right; ``None`` if there is none.
        seconds: Times of the candidates that were right.
        discarded: Why the others were not timed.
    """

    name: str | None
    seconds: Mapping[str, float]
    discarded: Mapping[str, str]

    def __str__(self) -> str:
        order = sorted(self.seconds, key=self.seconds.__getitem__)
        parts = [f'{name} {1000 * self.seconds[name]:.3g} ms' for name in order]
        parts += [f'{name} discarded: {reason}' for name, reason in self.discarded.items()]
        return f'{self.name} ({", ".join(parts)})'


def compare(
    trials: Mapping[str, Trial],
    *,
    limits: Sequence[float],
    clock: Callable[[Callable[[], object]], float],
) -> Choice:
    """Check and time candidates.

    Args:
        trials: Trials of the candidates, by name.
        limits: The largest error of each result.
        clock: Runs a function and returns how many seconds it took.
    """
    seconds: dict[str, float] = {}
    discarded: dict[str, str] = {}
    for name, trial in trials.items():
        try:
            if reason := _excess(trial.errors(), limits):
                discarded[name] = reason
                continue
            trial.run()
            seconds[name] = min(clock(trial.run) for _ in range(_NUM_RUNS))
        # Compilers and drivers raise errors of any type.
        except Exception as error:
            line = next(iter(str(error).splitlines()), '')
            discarded[name] = f'{type(error).__name__}: {line}'[:200]
    fastest = min(seconds, key=seconds.__getitem__) if seconds else None
    return Choice(fastest, seconds, discarded)


def _excess(errors: Sequence[float], limits: Sequence[float]) -> str | None:
    for error, limit in zip(errors, limits, strict=True):
        if not math.isfinite(error):
            return 'a result is not finite'
        if error > limit:
            return f'an error of {error:.1e}, above {limit:.1e}'
    return None


class ChoiceFile:
    """A JSON file of choices by key, shared by all processes and jobs of a user.

    It is a cache: what cannot be read is measured again, what cannot be written is not kept.

    Args:
        path: The file; ``None`` keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the entries by key; none where the file is missing, or not in this format."""
        if self.path is None:
            return {}
        try:
            content = json.loads(self.path.read_bytes())
        # Brackets without end are one error too.
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get('format') != _FORMAT:
            return {}
        entries = content.get('choices')
        return {
            key: entry
            for key, entry in (entries.items() if isinstance(entries, dict) else ())
            if isinstance(entry, dict) and isinstance(entry.get('name'), str)
        }

    def add(self, key: str, choice: Choice) -> None:
        """Write an entry beside those that are there, atomically."""
        if self.path is None:
            return
        milliseconds = {name: round(1000 * value, 4) for name, value in choice.seconds.items()}
        entry = {'name': choice.name, 'ms': milliseconds, 'discarded': dict(choice.discarded)}
        text = json.dumps({'format': _FORMAT, 'choices': {**self.read(), key: entry}}, indent=1)
        # The core stands alone, without the package's ``atomic_write``; of a cache nothing need
        # survive a crash of the machine.
        part = self.path.with_name(f'.{self.path.name}.{os.getpid()}.{threading.get_ident()}')
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open('w') as file:
                file.write(text + '\n')
            part.replace(self.path)
        except OSError as error:
            logging.getLogger('swinv2_mm').debug('%s is not written: %s', self.path, error)
            with contextlib.suppress(OSError):
                part.unlink()


class Selector:
    """Choose once per key and process, alike in all processes of a job.

    Rank 0 measures, or finds the choice in the file; the others take its choice, or the fallback
    where rank 0 does not meet the key. A choice never changes within a process: activation
    checkpointing runs in backward what ran in forward.

    Args:
        file: File of earlier choices.
        clock: See ``compare``.
        peers: The other processes; ``None`` for a single one.
    """

    def __init__(
        self,
        file: ChoiceFile,
        *,
        clock: Callable[[Callable[[], object]], float],
        peers: Callable[[], Peers | None] = lambda: None,
    ) -> None:
        self.file = file
        self.clock = clock
        self.peers = peers
        self._chosen: dict[str, str] = {}
        self._lock = threading.RLock()

    def known(self, key: str) -> str | None:
        """Return what was chosen in this process."""
        return self._chosen.get(key)

    def choose(
        self,
        key: str,
        *,
        names: Sequence[str],
        fallback: str,
        prepare: Callable[[], tuple[Mapping[str, Trial], Sequence[float]]],
    ) -> str:
        """Return the name of the candidate to run.

        Args:
            key: What the choice depends on.
            names: Names of the candidates.
            fallback: What runs if none is right, or rank 0 says nothing.
            prepare: Returns trials by name, and the limits of their errors.
        """
        # Two threads that meet a key at once would measure each other.
        with self._lock:
            chosen = self._chosen.get(key)
            if chosen is None:
                peers = self.peers()
                if peers is not None and peers.rank != 0:
                    chosen = self._ask(key, peers)
                else:
                    chosen = self._decide(key, peers, names=names, prepare=prepare)
                # Another version of the package, or of the file, may know other candidates.
                if chosen is None or chosen not in names:
                    chosen = fallback
                self._chosen[key] = chosen
        return chosen

    def _ask(self, key: str, peers: Peers) -> str | None:
        found = peers.find(f'{key} begun', seconds=_UNTIL_BEGUN_S)
        return None if found is None else peers.find(key, seconds=_UNTIL_CHOSEN_S)

    def _decide(
        self,
        key: str,
        peers: Peers | None,
        *,
        names: Sequence[str],
        prepare: Callable[[], tuple[Mapping[str, Trial], Sequence[float]]],
    ) -> str | None:
        if peers is not None:
            peers.publish(f'{key} begun', _BEGUN)
        chosen: str | None = self.file.read().get(key, {}).get('name')
        if chosen not in names:
            choice = self._measure(prepare)
            chosen = choice.name
            logging.getLogger('swinv2_mm').info('attention on %s: %s', key, choice)
            if chosen is not None:
                self.file.add(key, choice)
        if peers is not None:
            peers.publish(key, chosen or '')
        return chosen

    def _measure(
        self, prepare: Callable[[], tuple[Mapping[str, Trial], Sequence[float]]]
    ) -> Choice:
        try:
            trials, limits = prepare()
        except Exception as error:
            # Such as a lack of memory for the definition itself.
            return Choice(None, {}, {'all': f'{type(error).__name__}: {error}'[:200]})
        return compare(trials, limits=limits, clock=self.clock)
