"""Run a command, and turn its errors into one line."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import copy_context

from swinv2_mm.errors import UserError
from swinv2_mm.installed import missing_package

# Options of glibc's mallopt, and what they are set to.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _OLD_LIMIT_BYTES = 512 << 20, 32 << 20
# Status of a program that SIGPIPE has ended; Windows has no such signal.
_READER_GONE_STATUS = 128 + 13


def run_tool(main: Callable[[], None], *, trust_checkpoint: bool = False) -> None:
    """Run a command; an error of the user, or of the machine, becomes one line and exit status 1.

    ``SWINV2_MM_TRACEBACK=1`` shows where it was raised.

    Args:
        main: The command.
        trust_checkpoint: Whether files may run code while they are read.
    """

    def run() -> None:
        if trust_checkpoint:
            from swinv2_mm.checkpoint.weight_files import trust_files

            trust_files()
        main()

    quiet_console, explanation, end_workers = _of_engine()
    try:
        with quiet_console():
            # Context variables that this run sets, such as trust in files, end with it.
            copy_context().run(run)
            sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_reader_gone():
            sys.exit(_READER_GONE_STATUS)
        message = _one_line(error) if isinstance(error, UserError) else explanation(error)
        if message is None:
            raise
        if os.environ.get('SWINV2_MM_TRACEBACK') == '1':
            traceback.print_exc()
        print(f'error: {message}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    finally:
        end_workers()


def keep_freed_memory() -> None:
    """Keep freed memory in the process on a CPU, for the next iteration: up to 512 MiB.

    glibc returns it to the system, and each page of it that is written to again is a page fault:
    up to a fifth of the time of a training. Settings of the user (``MALLOC_...``) are left alone.
    """
    import torch

    libc = ctypes.CDLL(None) if sys.platform == 'linux' else None
    is_set = any(name.startswith(('MALLOC_', 'GLIBC_TUNABLES')) for name in os.environ)
    if torch.cuda.is_available() or is_set or not hasattr(libc, 'mallopt'):
        return
    # Once either is set, glibc adapts neither.
    if any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in (_KEPT_BYTES, _OLD_LIMIT_BYTES)):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Have SIGTERM exit by an exception, so that temporary files and child processes go first."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _of_engine() -> tuple[Callable, Callable, Callable]:
    """Return the console filter, the explanation of errors and the end of workers.

    ``swinv2-mm checkpoint`` does without OpenMMLab; other commands then name what they lack.
    """
    try:
        from swinv2_mm.engine.console import quiet_console
        from swinv2_mm.engine.failures import explanation
        from swinv2_mm.engine.workers import end_workers
    except ImportError as error:
        if missing_package(error) is None:
            raise
        return nullcontext, _missing, list
    return quiet_console, explanation, end_workers


def _missing(error: Exception) -> str | None:
    return missing_package(error) if isinstance(error, ImportError) else None


def _is_reader_gone() -> bool:
    """Return whether the reader of a pipe has closed it, as ``head`` does."""
    if not hasattr(select, 'poll'):
        return True  # Windows
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    is_gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if is_gone:
        # Otherwise the interpreter fails to flush it at exit, and says so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_gone


def _one_line(error: Exception) -> str:
    """Undo the wrapping of an error that a data loader's worker raised."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and 'Traceback' in str(error):
        return lines[-1].partition(': ')[2]
    return ' '.join(lines)
