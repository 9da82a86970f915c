# PYTHON_ARGCOMPLETE_OK
"""Train a detector, segmentor or classifier from a config; the same as ``swinv2-mm train``."""

from swinv2_mm.cli.commands.train import main

if __name__ == '__main__':
    main()
