# PYTHON_ARGCOMPLETE_OK
"""Find the options that make a training fit into a GPU; the same as ``swinv2-mm memory``."""

from swinv2_mm.cli.commands.memory import main

if __name__ == '__main__':
    main()
