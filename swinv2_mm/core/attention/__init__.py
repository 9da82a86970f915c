"""Window attention: one prologue, one file per backend, the module that owns the parameters."""

from .backends import BACKENDS as BACKENDS
from .backends import Backend as Backend
from .backends import describe_backend as describe_backend
from .backends import is_built_in as is_built_in
from .backends import resolve_backend as resolve_backend
from .window_attention import WindowAttention as WindowAttention
