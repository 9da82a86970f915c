"""Limits on time and memory for one call, and a count of what comes of many."""

import resource
import signal
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

LONGEST_S = 20
MEMORY = 4 << 30


class Hang(BaseException):
    """Not an Exception: what catches those would take it for a damaged file."""


@contextmanager
def bounded(memory=MEMORY):
    """Give the process so much more address space than it has; yields a function to call others.

    The function raises ``Hang`` if the call takes longer than ``LONGEST_S``.
    """

    def stop(*_):
        raise Hang(f'takes longer than {LONGEST_S} s')

    def call(function, *arguments):
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
        start = time.monotonic()
        try:
            return function(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            call.longest_s = max(call.longest_s, time.monotonic() - start)

    call.longest_s = 0.0
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))
    try:
        yield call
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def figures(counts: Counter, *, longest_s):
    """Write what became of files: how many, and errors by kind."""
    kinds = ', '.join(f'{kind} {number}' for kind, number in counts.most_common())
    return f'{sum(counts.values()):,} files: {kinds}; longest {longest_s:.1f} s'
