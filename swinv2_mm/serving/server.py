"""Listen at an address, and serve an application until it is told to stop."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from swinv2_mm.errors import UserError

from .web_packages import fastapi, uvicorn

_LOOK_S = 0.02
_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; 0 is any port that is free.

    Raises:
        UserError: If nothing can listen there.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise UserError(f'cannot listen at {host}:{port}: {error}') from error
    # Connections inherit it; asyncio sets it for other sockets only. Without it the body of an
    # answer waits for the acknowledgement of its headers, which clients delay by 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of what listens."""
    host, port = listener.getsockname()[:2]
    return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def run_server(app: fastapi.FastAPI, listener: socket.socket, *, grace_s: float) -> None:
    """Serve until SIGTERM or SIGINT; requests that are open then are answered.

    Args:
        app: The application.
        listener: Socket from ``listen``; it is closed at the end.
        grace_s: The longest that open requests are waited for.

    Raises:
        KeyboardInterrupt: After SIGINT.
    """

    # uvicorn raises the signal again at the end, which would kill the process.
    def ended(number: int, frame: FrameType | None) -> None:
        pass

    previous = signal.signal(signal.SIGTERM, ended)
    try:
        _server(app, grace_s=grace_s).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def serving(app: fastapi.FastAPI, *, grace_s: float = 10.0) -> Iterator[str]:
    """Serve on the loop-back interface, in a thread, while the context lasts.

    Yields:
        The URL.
    """
    listener = listen('127.0.0.1', 0)
    server = _server(app, grace_s=grace_s)
    thread = threading.Thread(target=server.run, kwargs={'sockets': [listener]}, daemon=True)
    thread.start()
    url = url_of(listener)
    while thread.is_alive() and not server.started:
        time.sleep(_LOOK_S)
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join()


def _server(app: fastapi.FastAPI, *, grace_s: float) -> uvicorn.Server:
    # They warn of each malformed request or form: its answer says what is wrong with it.
    for name in ('uvicorn.error', 'python_multipart'):
        logging.getLogger(name).setLevel(logging.ERROR)
    # So does Pillow, of damage that it can read around.
    warnings.filterwarnings('ignore', module='PIL')
    config = uvicorn.Config(
        app,
        # Its parser bounds the headers of a request; others take any length.
        http='h11',
        ws='none',
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(grace_s),
        lifespan='on',
    )
    return uvicorn.Server(config)
