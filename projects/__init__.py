"""Work that builds on swinv2_mm; nothing in the package imports it."""

from pkgutil import extend_path

# A user's own folder of this name stays importable beside ours.
__path__ = extend_path(__path__, __name__)
