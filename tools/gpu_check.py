# PYTHON_ARGCOMPLETE_OK
"""Check attention and backbones on a GPU; the same as ``swinv2-mm gpu_check``."""

from swinv2_mm.cli.commands.gpu_check import main

if __name__ == '__main__':
    main()
