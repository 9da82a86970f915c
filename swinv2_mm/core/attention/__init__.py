"""Window attention: one prologue, one file per backend, the module that owns the parameters."""

from .backends import BACKENDS, Backend, resolve_backend
from .window_attention import WindowAttention

__all__ = ['BACKENDS', 'Backend', 'WindowAttention', 'resolve_backend']
