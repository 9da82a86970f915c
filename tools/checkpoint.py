# PYTHON_ARGCOMPLETE_OK
"""Inspect, convert, compare, bake or consolidate weights; the same as ``swinv2-mm checkpoint``."""

from swinv2_mm.cli.commands.checkpoint import main

if __name__ == '__main__':
    main()
