"""Data sets that need no download; each module is imported by name."""
