"""One module per command: a function for Python, its argument parser, and ``main`` for shells."""
