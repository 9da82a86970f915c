"""Import what the server is built on, or raise an error that says how to install it."""

from __future__ import annotations

from swinv2_mm.errors import UserError

try:
    import fastapi
    import prometheus_client
    import python_multipart  # noqa: F401
    import uvicorn
except ImportError as error:
    raise UserError(
        'the server needs FastAPI, uvicorn, python-multipart and prometheus-client: '
        f"pip install 'swinv2_mm[serve]' ({error})"
    ) from error

__all__ = ['fastapi', 'prometheus_client', 'uvicorn']
