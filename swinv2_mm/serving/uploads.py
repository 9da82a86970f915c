"""Read the image of a request within limits: a raw body, or one file of a form."""

from __future__ import annotations

import asyncio

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from .refusals import Refusal

FIELD = 'image'
# Bytes that the parts of a form take beside the file.
_FORM_BYTES = 16 << 10
_MOST_DIGITS = 18
_ONE_FILE = f"a form must have one file, in the field '{FIELD}', and nothing else"


async def read_upload(request: Request, *, num_bytes: int, seconds: float) -> bytes:
    """Return the content of the image file in a request.

    Args:
        request: Its body is the file, whatever its media type, or a form with the file.
        num_bytes: The most that the file may have.
        seconds: The most that the upload may take.

    Raises:
        Refusal: If there is no such file, or it exceeds a limit.
    """
    if request.headers.get('content-encoding', 'identity') != 'identity':
        raise Refusal(415, 'send the image without a Content-Encoding')
    is_form = request.headers.get('content-type', '').startswith('multipart/')
    too_large = Refusal(413, f'the image has more than {num_bytes:,} bytes, which is the limit')
    most = num_bytes + (_FORM_BYTES if is_form else 0)
    declared = request.headers.get('content-length', '0')
    # Python refuses to parse numbers of more digits.
    if not declared.isdecimal() or len(declared) > _MOST_DIGITS or int(declared) > most:
        raise too_large
    limited = Request(request.scope, _limited(request.receive, most, too_large))
    try:
        content = await asyncio.wait_for(
            _read_file(limited) if is_form else limited.body(), seconds
        )
    except asyncio.TimeoutError:
        raise Refusal(408, f'the upload took longer than {seconds:g} s') from None
    if not content:
        raise Refusal(400, 'the request has no image: it is empty (0 bytes)')
    if len(content) > num_bytes:
        raise too_large
    return content


def _limited(receive: Receive, num_bytes: int, refusal: Refusal) -> Receive:
    """Count the bytes of a body while they arrive: their number may be declared wrong, or not."""
    num_read = 0

    async def read() -> Message:
        nonlocal num_read
        message = await receive()
        num_read += len(message.get('body', b''))
        if num_read > num_bytes:
            raise refusal
        return message

    return read


async def _read_file(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=0) as form:
            files = form.multi_items()
            if len(files) != 1 or files[0][0] != FIELD or not isinstance(files[0][1], UploadFile):
                raise Refusal(400, _ONE_FILE)
            return await files[0][1].read()
    except HTTPException as error:
        raise Refusal(400, f'{_ONE_FILE} ({error.detail.strip(" .")})') from None
    except (ValueError, LookupError, TypeError, AttributeError):
        # The form parser raises other errors for incomplete headers.
        raise Refusal(400, f'the form cannot be read: {_ONE_FILE}') from None
