# PYTHON_ARGCOMPLETE_OK
"""Train and test all three tasks on generated data; the same as ``swinv2-mm quickstart``."""

from swinv2_mm.cli.commands.quickstart import main

if __name__ == '__main__':
    main()
