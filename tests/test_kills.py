"""Trainings of all three tasks that are killed again and again end as if nothing had been."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

KILLS = (17, 9, 8)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, subprocess_environment):
    done = subprocess.run(
        [sys.executable, 'tests/kill_harness.py', tmp_path, '--kills', *map(str, KILLS)],
        cwd=ROOT, env=subprocess_environment, capture_output=True, text=True,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    kills, in_saves = map(int, re.search(r'(\d+) kills, (\d+) in a save', done.stdout).groups())
    assert kills == sum(KILLS) >= 30 and in_saves >= 5
