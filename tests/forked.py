"""A script in a process of its own, forked from one that has done the imports."""

import os
import runpy
import signal
import sys
import traceback


def fork_script(path, *arguments, output, environment=None, prepare=None):
    """Run a script as ``python PATH ARGUMENTS`` would; returns the process id.

    Args:
        path: The script.
        arguments: Arguments of its command line.
        output: File for what it prints.
        environment: Variables that it has besides those of this process.
        prepare: Called in the new process before the script.
    """
    with output.open('wb') as file:
        if pid := os.fork():
            return pid
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    status = 1
    try:
        # Those of a test are replaced, and its streams are not this process's.
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        sys.stdout, sys.stderr = (open(number, 'w', closefd=False) for number in (1, 2))
        os.environ.update(environment or {})
        sys.argv = [os.path.basename(path), *map(str, arguments)]
        if prepare is not None:
            prepare()
        runpy.run_path(str(path), run_name='__main__')
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def status_of(pid, *, is_awaited=True):
    """Return the exit status of a forked process, or ``None`` while it runs."""
    found, status = os.waitpid(pid, 0 if is_awaited else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None
