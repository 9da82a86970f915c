# PYTHON_ARGCOMPLETE_OK
"""Serve the predictions of a trained model over HTTP; the same as ``swinv2-mm serve``."""

from swinv2_mm.cli.commands.serve import main

if __name__ == '__main__':
    main()
