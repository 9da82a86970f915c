# PYTHON_ARGCOMPLETE_OK
"""Draw figures of models and trainings; the same as ``swinv2-mm plot``."""

from swinv2_mm.cli.commands.plot import main

if __name__ == '__main__':
    main()
