"""Download weights to torch's cache atomically, with their checksum verified."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import torch

from swinv2_mm.atomic_write import discard, publish

from .errors import CheckpointError

_TIMEOUT_S = 30
# torch's convention: the name ends in the beginning of the file's SHA-256.
_HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.[a-z]+$')
# Names that say nothing: files of several models would share them in the cache.
_GENERIC = {'model', 'pytorch_model', 'checkpoint', 'weights', 'latest', 'best', 'last'}


def cached_path(url: str) -> Path:
    """Return where the file of a URL is, or will be, kept: in torch's hub directory.

    ``TORCH_HOME`` moves it. The name is the URL's last part, as torch has it, with a digest of
    the URL in front of names such as ``model.safetensors``.
    """
    name = Path(urlparse(url).path).name
    if Path(name).stem in _GENERIC:
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}'
    return Path(torch.hub.get_dir(), 'checkpoints', name)


def fetch(url: str) -> Path:
    """Download a file unless it is in the cache, and return its path.

    Shows a progress bar. The file appears under its name when its size, and its hash where the
    name tells it, are right.

    Raises:
        CheckpointError: If the URL does not name a file, the server or connection fails, or what
            arrived is not the whole file.
    """
    path = cached_path(url)
    if path.is_file():
        return path
    if not path.suffix:
        raise CheckpointError(f'{url} does not name a file')
    expected_hash = _HASH_IN_NAME.search(Path(urlparse(url).path).name)
    part = path.with_name(f'.{path.name}.{os.getpid()}.whole')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # torch's download waits for ever and does not miss the end of a file.
        with urlopen(Request(url, method='HEAD'), timeout=_TIMEOUT_S) as answer:
            promised = int(answer.headers.get('Content-Length') or 0)
        # Writes to a file of its own and moves it.
        torch.hub.download_url_to_file(
            url, str(part), hash_prefix=expected_hash and expected_hash[1]
        )
        received = part.stat().st_size
        if promised and received != promised:
            raise CheckpointError(
                f'the download of {url} broke off after {received} of {promised} bytes: try again'
            )
        publish(part, path)
    except RuntimeError:
        raise CheckpointError(
            f'what {url} sent does not have the SHA-256 that its name promises'
        ) from None
    except HTTPError as error:
        raise CheckpointError(f'cannot download {url}: {error.code} {error.reason}') from None
    except OSError as error:
        reason = getattr(error, 'reason', None) or error.strerror or error
        raise CheckpointError(
            f'cannot download {url}: {reason}. Without a connection, put the file at {path}'
        ) from None
    finally:
        discard(part)
    return path
