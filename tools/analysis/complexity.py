# PYTHON_ARGCOMPLETE_OK
"""Report parameters, FLOPs and GPU memory of a model; the same as ``swinv2-mm complexity``."""

from swinv2_mm.cli.commands.complexity import main

if __name__ == '__main__':
    main()
