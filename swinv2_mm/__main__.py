# PYTHON_ARGCOMPLETE_OK
"""Run a command of the toolkit: ``python -m swinv2_mm COMMAND``, or ``swinv2-mm COMMAND``."""

from swinv2_mm.cli.dispatch import main

if __name__ == '__main__':
    main()
