# PYTHON_ARGCOMPLETE_OK
"""Validate the data sets of a config: ``dataset.py check`` is the same as ``swinv2-mm check``."""

import sys

from swinv2_mm.cli.dispatch import main

if __name__ == '__main__':
    main(['check'], program=f'python {sys.argv[0]}')
