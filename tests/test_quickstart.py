"""The demo, with hardly any training: every step of it, and what it prints."""

import os
import subprocess
import sys

from conftest import ROOT


def test_quickstart(tmp_path):
    command = [sys.executable, 'tools/quickstart.py', '--work-dir', str(tmp_path)]
    command += ['--images', '8', '--iterations', '2']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ('top-1 accuracy', 'mIoU', 'box AP50', 'mask AP50', 'guessing gives'):
        assert word in done.stdout
    shown = [line.strip() for line in done.stdout.splitlines() if line.startswith('  /')]
    assert len(shown) == 3 and all(os.path.getsize(path) > 0 for path in shown)
