"""Requests that a server must refuse: broken images, bombs, wrong forms, malformed HTTP."""

from __future__ import annotations

import io
import random
import socket
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from PIL import Image

_TIMEOUT_S = 60
_BOUNDARY = 'limit-of-parts'
_CHUNK = 1 << 16
# Bytes of a long header: several times what a server reads at once.
_LONG = 1 << 20
# Size of an image that a server with default limits refuses to decode.
_CLAIMED_PX = (100_000, 100_000)


@dataclass(frozen=True)
class Upload:
    """One request as it goes over the wire.

    Attributes:
        kind: What is wrong with it.
        content: All bytes.
        num_sent: How many of them are sent before the client goes away; ``None``: all, and the
            answer is read.
        may_succeed: Whether it may be an image after all.
    """

    kind: str
    content: bytes
    num_sent: int | None = None
    may_succeed: bool = False


def request(
    body: bytes,
    *,
    path: str = '/predict',
    method: str = 'POST',
    headers: Sequence[str] = (),
    length: int | None = None,
) -> bytes:
    """Return an HTTP request with a body, whose length may be declared wrong."""
    lines = [f'{method} {path} HTTP/1.1', 'Host: here', 'Connection: close', *headers]
    lines.append(f'Content-Length: {len(body) if length is None else length}')
    return '\r\n'.join([*lines, '', '']).encode() + body


def form(parts: Sequence[tuple[str, bytes]], *, ends: bool = True) -> tuple[bytes, str]:
    """Return the body of a form, of headers and contents of its parts, and its content type."""
    body = b''.join(
        f'--{_BOUNDARY}\r\n{headers}\r\n\r\n'.encode() + content + b'\r\n'
        for headers, content in parts
    )
    body += f'--{_BOUNDARY}--\r\n'.encode() if ends else b''
    return body, f'Content-Type: multipart/form-data; boundary={_BOUNDARY}'


def send(url: str, content: bytes, *, num_sent: int | None = None) -> tuple[int | None, bytes]:
    """Send the bytes of a request.

    Returns:
        Status and body of the answer; no status if there was none.
    """
    address = urlsplit(url)
    place = (address.hostname, address.port)
    with socket.create_connection(place, timeout=_TIMEOUT_S) as connection:
        try:
            connection.sendall(content if num_sent is None else content[:num_sent])
        except OSError:
            pass  # It has answered, and closed, before it had all.
        if num_sent is not None:
            return None, b''
        answer = b''
        try:
            while part := connection.recv(_CHUNK):
                answer += part
        except ConnectionResetError:
            pass
    head, _, body = answer.partition(b'\r\n\r\n')
    words = head.split(maxsplit=2)
    return (int(words[1]) if len(words) > 1 else None), body


def bad_uploads(number: int, *, image: bytes, seed: int = 0) -> list[Upload]:
    """Make requests of every kind in turn, each drawn at random.

    Args:
        number: How many.
        image: A whole image file.
        seed: Seed of the random draws.
    """
    draw = random.Random(seed)
    return [_KINDS[i % len(_KINDS)](draw, image) for i in range(number)]


def _raw(kind: str, make: Callable[[random.Random, bytes], bytes], **facts: bool) -> _Kind:
    """A request whose body is made."""
    return lambda draw, image: Upload(kind, request(make(draw, image)), **facts)


def _in_form(kind: str, make: Callable[[random.Random, bytes], Sequence]) -> _Kind:
    """A form whose parts are made."""

    def upload(draw: random.Random, image: bytes) -> Upload:
        body, header = form(make(draw, image))
        return Upload(kind, request(body, headers=[header]))

    return upload


def _truncated(draw: random.Random, image: bytes) -> bytes:
    return image[: draw.randrange(1, len(image) * 3 // 4)]


def _flipped(draw: random.Random, image: bytes) -> bytes:
    content = bytearray(image)
    for _ in range(draw.randint(1, 40)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def _not_an_image(draw: random.Random, image: bytes) -> bytes:
    return draw.choice(
        [
            draw.randbytes(draw.randint(1, 5000)),
            b'hello ' * draw.randint(1, 900),
            b'<svg xmlns="http://www.w3.org/2000/svg"/>',
            b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n',
            b'{"image": "' + b'A' * draw.randint(1, 900) + b'"}',
            b'PK\x03\x04' + draw.randbytes(500),
            b'\x7fELF' + bytes(2000),
            b'\x89PNG\r\n\x1a\n' + draw.randbytes(60),
            b'\xff\xd8\xff\xe0' + draw.randbytes(400),
            b'GIF89a' + draw.randbytes(30),
            b'II*\x00' + draw.randbytes(300),
            b'RIFF' + draw.randbytes(4) + b'WEBPVP8 ' + draw.randbytes(60),
        ]
    )


def _png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has almost no pixels."""
    chunks = [(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))]
    chunks += [(b'IDAT', zlib.compress(bytes(100))), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(c)) + k + c + struct.pack('>I', zlib.crc32(k + c)) for k, c in chunks
    )


def _saved(size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    Image.new('1', size).save(file, kind)
    return file.getvalue()


def _bomb(draw: random.Random, image: bytes) -> bytes:
    """Few bytes, many pixels."""
    return draw.choice(
        [
            partial(_png_header, *_CLAIMED_PX),
            partial(_png_header, 2**31 - 1, 1),
            partial(_png_header, 7000, 6000 + draw.randrange(500)),
            partial(_saved, (70_000, 1), 'PNG'),
            partial(_saved, (1, 30_000 + draw.randrange(9)), 'PNG'),
            partial(_saved, (9000, 9000), 'TIFF'),
            partial(_saved, (7000, 7000), 'PNG'),
            lambda: b'P6 99999 99999 255\n' + bytes(50),
            lambda: b'BM' + bytes(8) + struct.pack('<IIii', 54, 40, 90_000, 90_000) + bytes(90),
        ]
    )()


def _wrong_fields(draw: random.Random, image: bytes) -> list[tuple[str, bytes]]:
    data = 'Content-Disposition: form-data; '
    file, text = data + 'name="{}"; filename="a.jpg"', data + 'name="{}"'
    return draw.choice(
        [
            [(file.format('photo'), image)],
            [(file.format('image'), image), (file.format('image'), image)],
            [(text.format('image'), image[:200])],
            [(file.format('image'), image), (text.format('score_threshold'), b'0.5')],
            [('Content-Type: image/jpeg', image)],
            [(file.format('image') + '\r\nX: ' + 'y' * 9000, image)],
            [(text.format(f'n{i}'), b'x') for i in range(200)],
            [(file.format('image'), b'')],
            [(file.format('image'), image[:100])],
            [],
        ]
    )


def _malformed_form(draw: random.Random, image: bytes) -> Upload:
    body, header = form([('Content-Disposition: form-data; name="image"; filename="a"', image)])
    body = body[: draw.randrange(len(body) - 8)]
    header = draw.choice(
        [
            header,
            'Content-Type: multipart/form-data',
            'Content-Type: multipart/form-data; boundary=',
            'Content-Type: multipart/form-data; boundary=\xe4\xf6; charset=nonsense',
            'Content-Type: multipart/form-data; boundary=other',
            f'Content-Type: multipart/mixed; boundary={_BOUNDARY}',
        ]
    )
    return Upload('malformed form', request(body, headers=[header]))


def _wrong_option(draw: random.Random, image: bytes) -> Upload:
    option = draw.choice(
        ['score_threshold=much', 'score_threshold=7', 'score_threshold=nan', 'draw=perhaps',
         'treshold=0.5', 'score_threshold=', '%00=%ff', 'draw[]=1']
    )  # fmt: skip
    return Upload('wrong option', request(image, path=f'/predict?{option}'))


def _wrong_place(draw: random.Random, image: bytes) -> Upload:
    method, path = draw.choice(
        [('GET', '/predict'), ('PUT', '/predict'), ('POST', '/'), ('POST', '/../../etc/passwd'),
         ('POST', '/metrics'), ('DELETE', '/model'), ('POST', '/predict/'), ('BREW', '/predict')]
    )  # fmt: skip
    return Upload('wrong place', request(image, method=method, path=path))


def _too_many_bytes(draw: random.Random, image: bytes) -> Upload:
    if draw.random() < 0.5:
        # Refused by what it declares, before it is sent.
        return Upload('too many bytes', request(image, length=draw.choice([10**8, 10**17])))
    # Nothing is declared.
    lines = ['POST /predict HTTP/1.1', 'Host: here', 'Connection: close']
    head = '\r\n'.join([*lines, 'Transfer-Encoding: chunked', '', '']).encode()
    chunk = f'{1 << 20:x}\r\n'.encode() + bytes(1 << 20) + b'\r\n'
    return Upload('too many bytes', head + 21 * chunk + b'0\r\n\r\n')


def _malformed_http(draw: random.Random, image: bytes) -> Upload:
    content = draw.choice(
        [
            b'hello\r\n\r\n',
            draw.randbytes(2000) + b'\r\n\r\n',
            request(image, headers=['X-Long: ' + 'x' * _LONG]),
            request(image, headers=[f'X-{i}: ' + 'x' * 5000 for i in range(400)]),
            request(image, path='/predict?' + 'x' * _LONG),
            request(image, headers=['Content-Length: -5']),
            request(image, headers=['Content-Length: many']),
            request(image, headers=['Transfer-Encoding: gzip, chunked']),
            request(image).replace(b'HTTP/1.1', b'HTTP/one'),
            request(image, headers=['Content-Encoding: gzip']),
            request(image).replace(b'Host: here\r\n', b''),
            request(b'zz\r\nnot a chunk', headers=['Transfer-Encoding: chunked']).replace(
                b'Content-Length', b'X-Length'
            ),
        ]
    )
    return Upload('malformed HTTP', content)


def _disconnect(draw: random.Random, image: bytes) -> Upload:
    body, header = form([('Content-Disposition: form-data; name="image"; filename="a"', image)])
    content = draw.choice([request(image), request(body, headers=[header])])
    # Also after the last byte, when the answer is about to be computed.
    num_sent = draw.choice([draw.randrange(1, len(content)), len(content)])
    return Upload('disconnect', content, num_sent=num_sent)


_Kind = Callable[[random.Random, bytes], Upload]
_KINDS: Sequence[_Kind] = (
    _raw('truncated', _truncated),
    _raw('not an image', _not_an_image),
    _raw('bomb', _bomb),
    _raw('empty', lambda draw, image: b''),
    _raw('bits flipped', _flipped, may_succeed=True),
    _in_form('wrong fields', _wrong_fields),
    _malformed_form,
    _wrong_option,
    _wrong_place,
    _too_many_bytes,
    _malformed_http,
    _disconnect,
)
