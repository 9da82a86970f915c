"""Join the processes of a job that share a list of files.

They need no process group: a key-value store is enough, that of torchrun's agent, or one that the
first process opens. It hands out the files, so that a process that is slow, or has the large
images, takes fewer.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from mmengine.device import get_device
from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from swinv2_mm.errors import UserError

# Rank and number of processes, in the job and on this machine.
_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NTASKS_PER_NODE'),
    'mpi': tuple(
        f'OMPI_COMM_WORLD_{name}' for name in ('RANK', 'SIZE', 'LOCAL_RANK', 'LOCAL_SIZE')
    ),
}
_JOIN_TIMEOUT = timedelta(minutes=30)
_POLL_S = 0.1
# Ports of jobs on one machine, by their Slurm numbers.
_FIRST_PORT, _NUM_PORTS = 20000, 10000


@dataclass
class Job:
    """The processes that work on one list; by default this one alone.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        local_rank: Number of this process on its machine.
        local_size: Number of processes on its machine.
        store: Where they meet; ``None`` for one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Store | None = None

    def claim(self) -> int:
        """Return the next number, from 0 on, that no process has claimed."""
        return self.count('claimed') - 1

    def count(self, name: str) -> int:
        """Add 1 to a counter of the job, and return its value."""
        assert self.store is not None
        return self.store.add(name, 1)

    def publish(self, name: str, value: Any = None) -> None:
        """Show a value (JSON) to all processes."""
        if self.store is not None:
            self.store.set(name, json.dumps(value))

    def wait_for(self, name: str) -> Any:
        """Return a published value, however long it takes; ``None`` for one process."""
        if self.store is None:
            return None
        while not self.store.check([name]):
            time.sleep(_POLL_S)
        return json.loads(self.store.get(name))

    def device(self, name: str | None) -> str:
        """Return the device of this process: where there are several GPUs, its own.

        Args:
            name: Asked for; ``None`` takes a GPU if there is one.
        """
        name = name or get_device()
        if name == 'cuda' and self.size > 1 and torch.cuda.is_available():
            return f'cuda:{self.local_rank % torch.cuda.device_count()}'
        return name


def join_job(launcher: str = 'none') -> Job:
    """Join the job that a launcher started, and take this process's share of the CPU.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun), ``slurm`` or ``mpi``.

    Raises:
        UserError: If the launcher has not started this process.
    """
    if launcher == 'none':
        return Job()
    names = _VARIABLES[launcher]
    try:
        rank, size, local_rank = (int(os.environ[name]) for name in names[:3])
    except KeyError as error:
        raise UserError(f'--launcher {launcher}: {error.args[0]} is not set') from error
    except ValueError as error:
        raise UserError(f'--launcher {launcher}: {error} in {", ".join(names[:3])}') from error
    local_size = int(os.environ.get(names[3], size))
    if size == 1:
        return Job()
    _share_cpu(launcher, local_size)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size))
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_slurm_host()
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    number = int(os.environ.get('SLURM_JOB_ID', 0)) + int(os.environ.get('SLURM_STEP_ID', 0))
    os.environ.setdefault('MASTER_PORT', str(_FIRST_PORT + number % _NUM_PORTS))
    store, _, _ = next(rendezvous('env://', timeout=_JOIN_TIMEOUT))
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    store = PrefixStore(f'swinv2_mm/files/{attempt}', store)
    return Job(rank, size, local_rank, local_size, store)


def _share_cpu(launcher: str, local_size: int) -> None:
    """Divide the cores of the machine; torchrun gives each process one, Slurm binds them."""
    if os.environ.get('OMP_NUM_THREADS', '1') != '1':
        return
    if launcher == 'slurm':
        cores = int(os.environ.get('SLURM_CPUS_PER_TASK', 0)) or torch.get_num_threads()
    else:
        has_affinity = hasattr(os, 'sched_getaffinity')
        cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
        cores //= local_size
    torch.set_num_threads(max(1, cores))


def _first_slurm_host() -> str:
    nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST', '')
    command = ['scontrol', 'show', 'hostnames', nodes]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            f'--launcher slurm: {" ".join(command)} does not name a host; set MASTER_ADDR'
        ) from error
