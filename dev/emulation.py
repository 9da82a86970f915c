"""Test an ONNX file on a processor that an emulator imitates, in the place of this one.

``python -m dev.emulation model.int8.onnx`` prints the metrics of a processor with AVX2 and without
VNNI. The model alone runs there; data and metrics are computed here.
"""

from __future__ import annotations

import argparse
import pickle
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from swinv2_mm.cli import test
from swinv2_mm.cli.running import run_tool
from swinv2_mm.runtime.files import ExportedFile, open_exported

_PROCESS = Path(__file__).with_name('onnx_process.py')


@contextmanager
def emulated(command: str) -> Iterator[None]:
    """Run every ONNX file that is opened in a process behind a command."""
    processes = []

    def opened(path: str | Path) -> ExportedFile:
        process = subprocess.Popen(
            [*shlex.split(command), sys.executable, str(_PROCESS), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes.append(process)

        def run(images: Tensor) -> list[Tensor]:
            assert process.stdin and process.stdout
            pickle.dump(images.numpy(), process.stdin)
            process.stdin.flush()
            return [torch.from_numpy(output) for output in pickle.load(process.stdout)]

        return replace(open_exported(path), run=run)

    try:
        with patch('swinv2_mm.runtime.model.open_exported', opened):
            yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Test a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', type=Path)
    parser.add_argument('--emulator', default='qemu-x86_64 -cpu Haswell', metavar='COMMAND')
    args = parser.parse_args()
    with emulated(args.emulator):
        for name, value in test(args.file).items():
            print(f'{name}: {value:.4g}')


if __name__ == '__main__':
    run_tool(main)
