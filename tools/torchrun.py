"""Run torchrun, and exit with the status of the training in it: takes the same arguments.

Exit status: 75 if the training was preempted and has saved, 1 with a line if a process failed.
SIGTERM and SIGUSR1 are passed on to the training.
"""

from __future__ import annotations

import os
import sys

# How torchrun takes --signals-to-handle from outside.
os.environ.setdefault('PET_SIGNALS_TO_HANDLE', 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1')

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

# As swinv2_mm.engine.preemption has it, without the seconds that importing it takes.
PREEMPTED_STATUS = 75


def run() -> int:
    """Run torchrun and return the exit status of its training."""
    try:
        main()
    except SignalException:
        # It has passed the signal on and waited; not all saves may have ended well, but each
        # says so itself, and in any case a later one can go on.
        return PREEMPTED_STATUS
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == PREEMPTED_STATUS:
            return PREEMPTED_STATUS
        how = (
            f'signal {-failure.exitcode}' if failure.exitcode < 0 else f'status {failure.exitcode}'
        )
        print(
            f'error: process {rank} (pid {failure.pid}) was the first to fail, with {how}; what '
            'it said is above, what was saved is intact, go on with --resume',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(run())
