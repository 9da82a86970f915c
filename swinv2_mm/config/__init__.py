"""Read config files, override their entries by options, and define our own entries."""
