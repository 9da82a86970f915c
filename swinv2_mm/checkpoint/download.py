"""Download weights to torch's cache atomically, with their checksum verified."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from torch.hub import tqdm  # type: ignore[attr-defined]

from swinv2_mm.atomic_write import discard, publish
from swinv2_mm.errors import one_line

from .errors import CheckpointError
from .file_checks import is_web_page
from .zoo import RELEASED

_TIMEOUT_S = 30
# A download that is slower on average is given up, once the time above has passed.
_LEAST_BYTES_PER_S = 1000
_CHUNK_BYTES = 1 << 20
# torch's convention: the name ends in the beginning of the file's SHA-256.
_HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.[a-z]+$')
_MOST_LETTERS = 100
_MOST_DIGITS = 20


def cached_path(url: str) -> Path:
    """Return where the file of a URL is, or will be, kept: in torch's hub directory.

    ``TORCH_HOME`` moves it. The name is the URL's last part, as torch has it, with a digest of
    the URL in front unless the name is a released model's, or holds the file's own hash: files of
    several trainings are called ``epoch_12.pth``.
    """
    name = _name(url)
    is_unique = _HASH_IN_NAME.search(name) or url in {model.url for model in RELEASED.values()}
    if not is_unique:
        name = re.sub(r'[^\w.-]', '_', name)[-_MOST_LETTERS:]
        name = f'{hashlib.sha256(url.encode(errors="replace")).hexdigest()[:12]}-{name}'
    return Path(torch.hub.get_dir(), 'checkpoints', name)


def _name(url: str) -> str:
    try:
        return Path(unquote(urlsplit(url).path)).name
    except ValueError as error:
        raise CheckpointError(f'{url} is no URL: {error}') from None


def fetch(url: str) -> Path:
    """Download a file unless it is in the cache, and return its path.

    Shows a progress bar. The file appears under its name when its size, and its hash where the
    name tells it, are right.

    Raises:
        CheckpointError: If the URL does not name a file, the server or connection fails or is too
            slow, or what arrived is a web page or not the whole file.
    """
    path = cached_path(url)
    if path.is_file() and not _is_web_page(path):
        return path
    if not Path(_name(url)).suffix:
        raise CheckpointError(f'{url} does not name a file')
    part = path.with_name(f'.{path.name}.{os.getpid()}.whole')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        request = Request(url, headers={'User-Agent': 'swinv2_mm'})
        with urlopen(request, timeout=_TIMEOUT_S) as answer:
            digest = _receive(answer, part, url=url)
        expected = _HASH_IN_NAME.search(_name(url))
        if expected and not digest.startswith(expected[1]):
            raise CheckpointError(
                f'what {url} sent does not have the SHA-256 that its name promises'
            )
        if _is_web_page(part):
            raise CheckpointError(
                f'{url} sent a web page, not weights: copy the address of the file itself'
            )
        publish(part, path)
    except HTTPError as error:
        text = one_line(error.reason)
        raise CheckpointError(f'cannot download {url}: {error.code} {text}') from None
    except (OSError, HTTPException, UnicodeError) as error:
        reason = getattr(error, 'reason', None) or getattr(error, 'strerror', None) or error
        raise CheckpointError(
            f'cannot download {url}: {one_line(reason) or type(error).__name__}. Without a '
            f'connection, put the file at {path}'
        ) from None
    finally:
        discard(part)
    return path


def _receive(answer: HTTPResponse, part: Path, *, url: str) -> str:
    """Write what a server sends to a file, and return its SHA-256.

    Raises:
        CheckpointError: If there is no room for it, or it breaks off or arrives too slowly.
    """
    length = answer.headers.get('Content-Length') or ''
    promised = int(length) if length.isdecimal() and len(length) < _MOST_DIGITS else None
    free = shutil.disk_usage(part.parent).free
    if promised is not None and promised > free:
        raise CheckpointError(f'{url} has {promised:,} bytes, {part.parent} room for {free:,}')
    digest, received, start = hashlib.sha256(), 0, time.monotonic()
    bar: Any = tqdm(total=promised, unit='B', unit_scale=True, unit_divisor=1024)
    with part.open('wb') as file, bar:
        # Read what has arrived: waiting for a whole chunk may take for ever.
        while chunk := answer.read1(_CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            bar.update(len(chunk))
            if time.monotonic() - start > _TIMEOUT_S + received / _LEAST_BYTES_PER_S:
                raise CheckpointError(
                    f'the download of {url} is too slow ({received:,} bytes so far): try again'
                )
    if promised is not None and received != promised:
        raise CheckpointError(
            f'the download of {url} broke off after {received} of {promised} bytes: try again'
        )
    return digest.hexdigest()


def _is_web_page(path: Path) -> bool:
    with path.open('rb') as file:
        return is_web_page(file.read(64))
