"""Workers that ignore a signal to the job do not keep it from ending."""

import subprocess
import sys

from conftest import ROOT

SCRIPT = """
import builtins
from torch.utils.data import DataLoader
from swinv2_mm.engine.workers import shield_workers

loader = DataLoader(list(range(8)), batch_size=2, num_workers=1, persistent_workers=True)
shield_workers(loader)
batches = iter(loader)
print(next(batches).tolist())
builtins.kept = loader, batches  # as the traceback of a failed test, or a notebook, keeps them
"""


def test_a_script_of_its_own_ends():
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.endswith('[0, 1]\n'), done.stderr
