# PYTHON_ARGCOMPLETE_OK
"""Serve a page on which trained models can be tried; the same as ``swinv2-mm demo``."""

from swinv2_mm.cli.commands.demo import main

if __name__ == '__main__':
    main()
