# PYTHON_ARGCOMPLETE_OK
"""Write a report of a training as one HTML file; the same as ``swinv2-mm report``."""

from swinv2_mm.cli.commands.report import main

if __name__ == '__main__':
    main()
