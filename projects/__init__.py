"""Work that builds on swinv2_mm; nothing in the package imports it."""
