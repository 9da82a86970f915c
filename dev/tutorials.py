"""Run the notebooks of ``docs/tutorials`` and store their outputs.

They run in the root of the repository, and paths that they print are relative to it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from swinv2_mm.cli.running import run_tool

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'docs' / 'tutorials'
_TIMEOUT_S = 1800


def run_notebook(path: Path, *, cwd: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run.

    Args:
        path: The notebook.
        cwd: Folder to run in, the root of a repository.

    Raises:
        CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {'metadata': {'path': str(cwd)}}
    NotebookClient(
        notebook, timeout=_TIMEOUT_S, kernel_name='python3', resources=resources
    ).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == 'code':
            cell.outputs = _tidy(cell.outputs, cwd=cwd)
    notebook.metadata = {
        'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
        'language_info': {'name': 'python'},
    }
    return notebook


def _tidy(outputs: Sequence[nbformat.NotebookNode], *, cwd: Path) -> list[nbformat.NotebookNode]:
    """Join what was printed piece by piece, with relative paths; leave stderr out."""
    tidied: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type != 'stream':
            tidied.append(output)
        elif output.name == 'stdout':
            output.text = output.text.replace(f'{cwd}/', '')
            if tidied and tidied[-1].output_type == 'stream':
                tidied[-1].text += output.text
            else:
                tidied.append(output)
    return tidied


def main() -> None:
    """Run the notebooks and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', help='such as detector; default all')
    names = parser.parse_args().names or sorted(path.stem for path in FOLDER.glob('*.ipynb'))
    os.environ['PYTHONPATH'] = str(ROOT)
    for name in names:
        path = FOLDER / f'{name}.ipynb'
        nbformat.write(run_notebook(path, cwd=ROOT), path)
        print(f'{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
    run_tool(main)
