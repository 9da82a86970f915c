"""Run a script of another library with mmcv's operators in place.

    python -m swinv2_mm.ops mmdet/analysis_tools/browse_dataset.py CONFIG --not-show

Tools of mmdet import its modules before they read the config that names ours. A script is a file,
or one of the tools that a library of OpenMMLab is installed with, by library and path.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

from . import ensure_ops


def _file_of(script: str) -> Path:
    library, _, path = script.partition('/')
    if not Path(script).is_file() and path and library.isidentifier():
        spec = importlib.util.find_spec(library)
        for folder in (spec and spec.submodule_search_locations) or ():
            return Path(folder) / '.mim' / 'tools' / path
    return Path(script)


def main() -> None:
    """Run the script of the command line as ``python SCRIPT`` does."""
    if len(sys.argv) < 2:
        raise SystemExit('usage: python -m swinv2_mm.ops SCRIPT [ARGUMENT ...]')
    file = _file_of(sys.argv[1])
    if not file.is_file():
        raise SystemExit(f'{sys.argv[1]} is neither a file nor a tool of a library: no file {file}')
    ensure_ops()
    sys.argv[:] = [str(file), *sys.argv[2:]]
    sys.path[0] = str(file.parent)
    runpy.run_path(str(file), run_name='__main__')


if __name__ == '__main__':
    main()
