"""The page over HTTP: three files, the list of models, and calls that predict or draw attention.

The standard library does: one page for one person at a time needs no framework, whose packages
would have to be kept up to date (Gradio brings some thirty, FastAPI with a server ten).
"""

from __future__ import annotations

import base64
import json
import math
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from swinv2_mm.errors import UserError
from swinv2_mm.inference.output_folder import encode_jpeg

from .model_shelf import MAX_WINDOW, ModelShelf, parse_request_window
from .uploads import FORMATS, MAX_BYTES, decode_upload

_STATIC = {
    '/': ('page.html', 'text/html; charset=utf-8'),
    '/page.css': ('page.css', 'text/css; charset=utf-8'),
    '/page.js': ('page.js', 'text/javascript; charset=utf-8'),
}
_HEADERS = {
    'Content-Security-Policy': "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}
_MOST_WAITING = 4  # requests; each holds an image of up to 40 million pixels
_MOST_DIGITS = 9
_PATIENCE_S = 30  # for a browser that stops sending


class _Refusal(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """Serves the page.

    Args:
        shelf: The models.
        host: Address to listen at. Any but a loopback address lets others in.
        port: 0 for any that is free.
        max_bytes: The largest upload.
    """

    daemon_threads = True

    def __init__(
        self,
        shelf: ModelShelf,
        *,
        host: str = '127.0.0.1',
        port: int = 0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.shelf = shelf
        self.max_bytes = max_bytes
        self.places = threading.BoundedSemaphore(_MOST_WAITING)
        super().__init__((host, port), _Handler)
        self.is_local = ip_address(self.server_address[0]).is_loopback

    @property
    def url(self) -> str:
        """Where the page is."""
        return f'http://{self.server_address[0]}:{self.server_port}/'


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = _PATIENCE_S
    protocol_version = 'HTTP/1.1'
    server_version = 'swinv2_mm'
    sys_version = ''

    def do_GET(self) -> None:
        """Send a file or the list of models."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Predict, or draw the attention of a pixel."""
        self._answer(self._post)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page tells."""

    def _answer(self, make: Callable[[], tuple[bytes, str]]) -> None:
        status = HTTPStatus.OK
        try:
            self._check_origin()
            content, kind = make()
        except _Refusal as refusal:
            status, content, kind = refusal.status, _json({'error': str(refusal)}), 'json'
        except UserError as error:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            content, kind = _json({'error': str(error)}), 'json'
        except (TimeoutError, ConnectionError):
            self.close_connection = True
            return
        except Exception:
            # The page must say something; whoever serves it sees what.
            traceback.print_exc()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            content, kind = _json({'error': 'the model failed on this image'}), 'json'
        if status != HTTPStatus.OK:
            # An upload that was refused may not have been read.
            self.close_connection = True
        self.send_response(status)
        self.send_header('Content-Type', 'application/json' if kind == 'json' else kind)
        self.send_header('Content-Length', str(len(content)))
        if self.close_connection:
            self.send_header('Connection', 'close')
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # who asked has gone
            self.end_headers()
            self.wfile.write(content)

    def _check_origin(self) -> None:
        """Refuse other sites in the same browser, also under a name that points here."""
        host = self.headers.get('Host', '')
        name = urlsplit(f'//{host}').hostname or ''
        if self.server.is_local and name not in ('localhost', '127.0.0.1', '::1'):
            raise _Refusal(HTTPStatus.FORBIDDEN, f'this page is not {name}')
        origin = self.headers.get('Origin')
        if origin is not None and origin != f'http://{host}':
            raise _Refusal(HTTPStatus.FORBIDDEN, 'another site may not call this page')

    def _get(self) -> tuple[bytes, str]:
        path = urlsplit(self.path).path
        if path in _STATIC:
            name, kind = _STATIC[path]
            return files(__package__).joinpath(name).read_bytes(), kind
        if path == '/models':
            choices = [{'name': c.name, 'task': c.task} for c in self.server.shelf.choices]
            limits = {'bytes': self.server.max_bytes, 'window': MAX_WINDOW, 'formats': FORMATS}
            return _json({'models': choices, 'limits': limits}), 'json'
        raise _Refusal(HTTPStatus.NOT_FOUND, 'there is no such page')

    def _post(self) -> tuple[bytes, str]:
        url = urlsplit(self.path)
        if url.path not in ('/predict', '/attention'):
            raise _Refusal(HTTPStatus.NOT_FOUND, 'there is no such page')
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        number = _parse_number(query, 'model')
        if number >= len(self.server.shelf.choices):
            raise _Refusal(HTTPStatus.BAD_REQUEST, 'there is no such model')
        window_size = parse_request_window(query.get('window', ''))
        threshold = _parse_threshold(query.get('threshold', '0.3'))
        pixel = _parse_number(query, 'y'), _parse_number(query, 'x')
        length = self._content_length()
        if not self.server.places.acquire(blocking=False):
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, 'too many requests; try again soon')
        try:
            content = self.rfile.read(length)
            image = decode_upload(content)
            if url.path == '/attention':
                picture = self.server.shelf.attention(
                    number, image, window_size=window_size, pixel=pixel
                )
                return _json({'picture': base64.b64encode(picture).decode()}), 'json'
            start = time.monotonic()
            prediction, picture = self.server.shelf.predict(
                number, image, window_size=window_size, score_threshold=threshold
            )
            seconds = time.monotonic() - start
        finally:
            self.server.places.release()
        rows = _rows(prediction.to_dict(), threshold)
        encoded = base64.b64encode(encode_jpeg(picture)).decode()
        height, width = image.shape[:2]
        answer = {'task': prediction.task, 'rows': rows, 'seconds': round(seconds, 2)}
        return _json({**answer, 'width': width, 'height': height, 'picture': encoded}), 'json'

    def _content_length(self) -> int:
        text = self.headers.get('Content-Length') or ''
        if not text.isascii() or not text.isdecimal():
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, 'the length of the upload is missing')
        if int(text) > self.server.max_bytes:
            limit = self.server.max_bytes / (1 << 20)
            raise _Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f'the file has more than {limit:.0f} MB'
            )
        return int(text)


def _parse_number(query: dict[str, str], name: str) -> int:
    text = query.get(name, '0')
    if not text.isascii() or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise _Refusal(HTTPStatus.BAD_REQUEST, f'{name} must be a whole number')
    return int(text)


def _parse_threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise _Refusal(HTTPStatus.BAD_REQUEST, 'the threshold must be from 0 to 1')
    return value


def _rows(content: dict, threshold: float) -> list[dict]:
    """What the table below the picture shows: names with scores or shares of the area."""
    if 'detections' in content:
        found = [d for d in content['detections'] if d['score'] > threshold]
        return [{'name': d['class'], 'value': d['score']} for d in found]
    if 'shares' in content:
        return [{'name': name, 'value': share} for name, share in content['shares'].items()]
    return [{'name': b['class'], 'value': b['score']} for b in content['best']]


def _json(content: dict) -> bytes:
    return json.dumps(content).encode()
