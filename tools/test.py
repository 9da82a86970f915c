# PYTHON_ARGCOMPLETE_OK
"""Evaluate a trained model on the test set of a config; the same as ``swinv2-mm test``."""

from swinv2_mm.cli.commands.test import main

if __name__ == '__main__':
    main()
