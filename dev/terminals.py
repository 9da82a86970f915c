"""Record what the commands print, for ``docs/terminals.md``: a training, a resume, a test, infer.

Commands run for real, on the data set of the demo, and write to a pipe: what a log file or Slurm
has. The training is preempted by SIGTERM, as a cluster does it, and then resumed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from dev.made_parts import with_made_parts
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli.running import run_tool

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'terminals.md'
COLUMNS = 100
_CONFIG = 'configs/detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py'
_WORK_DIR = 'work_dirs/first'
_LENGTH, _PREEMPTED_AT = 80, 40
_TRAIN = (
    f'swinv2-mm train {_CONFIG} --work-dir {_WORK_DIR} --cfg-options train_cfg.max_iters={_LENGTH} '
    f'train_cfg.val_interval={_LENGTH} default_hooks.checkpoint.interval={_LENGTH}'
)
_CHECKPOINT = f'{_WORK_DIR}/iter_{_LENGTH}.pth'
COMMANDS = {
    'train': _TRAIN,
    'resume': f'{_TRAIN} --resume',
    'test': f'swinv2-mm test {_CONFIG} {_CHECKPOINT} --window-size 16',
    'infer': f'swinv2-mm infer photos --config {_CONFIG} --weights {_CHECKPOINT} --out predictions',
}


@dataclass
class Recording:
    """What a command printed.

    Attributes:
        command: As typed.
        lines: Lines of standard output and standard error.
        first_after_s: Seconds until the first line.
        status: The exit status.
    """

    command: str
    lines: list[str] = field(default_factory=list)
    first_after_s: float = 0.0
    status: int = 0

    def as_lines(self) -> list[str]:
        """Return a block for a page."""
        command = f'$ {self.command}'.replace(' --cfg-options ', ' \\\n      --cfg-options ')
        return [
            '```text',
            *command.splitlines(),
            *self.lines,
            '```',
            '',
            f'First line after {self.first_after_s:.1f} s; exit status {self.status}.',
        ]


def record(command: str, *, cwd: Path, stop_at: str | None = None) -> Recording:
    """Run a command and keep what it prints.

    Args:
        command: As typed, beginning with ``swinv2-mm``.
        cwd: Folder to run it in, which is ``~`` in what is kept.
        stop_at: Pattern of the line at which the command gets SIGTERM.
    """
    words = [sys.executable, '-m', 'swinv2_mm', *shlex.split(command)[1:]]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'SWINV2_DATA': 'data'}
    environment |= {'COLUMNS': str(COLUMNS), 'NO_COLOR': '1', 'PYTHONUNBUFFERED': '1'}
    found = Recording(command)
    began = time.monotonic()
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not found.lines:
                found.first_after_s = time.monotonic() - began
            found.lines.append(line.rstrip().rpartition('\r')[2].replace(str(cwd), '~'))
            if stop_at is not None and re.search(stop_at, line):
                process.send_signal(signal.SIGTERM)
                stop_at = None
    found.status = process.returncode
    return found


def recordings(folder: Path) -> dict[str, Recording]:
    """Run all commands in a folder, on a small version of the data set of the demo."""
    from projects.digits.dataset import make_digits_on_photos

    (folder / 'configs').symlink_to(ROOT / 'configs')
    make_digits_on_photos(folder / 'data' / 'digits', num_train=200, num_val=30, progress=False)
    (folder / 'photos').mkdir()
    for path in sorted((folder / 'data' / 'digits' / 'images' / 'val').iterdir())[:5]:
        (folder / 'photos' / path.name).write_bytes(path.read_bytes())
    stop_at = rf'Iter\(train\) \[ *{_PREEMPTED_AT}/'
    return {
        name: record(command, cwd=folder, stop_at=stop_at if name == 'train' else None)
        for name, command in COMMANDS.items()
    }


def main() -> None:
    """Record the commands and write the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = recordings(Path(folder))
    parts = {name: recording.as_lines() for name, recording in found.items()}
    atomic_write(PAGE, with_made_parts(PAGE.read_text(), parts))
    print('\n'.join(line for lines in parts.values() for line in lines))


if __name__ == '__main__':
    run_tool(main)
