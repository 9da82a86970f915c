# PYTHON_ARGCOMPLETE_OK
"""Export a trained model to ONNX or torch.export; the same as ``swinv2-mm export``."""

from swinv2_mm.cli.commands.export import main

if __name__ == '__main__':
    main()
