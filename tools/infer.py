# PYTHON_ARGCOMPLETE_OK
"""Predict for images, folders and videos; the same as ``swinv2-mm infer``."""

from swinv2_mm.cli.commands.infer import main

if __name__ == '__main__':
    main()
