"""Identify what predictions depend on by content: paths stay when files are replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

_CHUNK_BYTES = 1 << 20
# Entries of a config that decide what a model predicts for an image.
_ENTRIES = ('default_scope', 'model', 'test_dataloader', 'tta')


def file_identity(file: str | Path) -> str:
    """Return the name of a file and its SHA-256; of what is no file, such as a model, the name."""
    path = Path(file)
    if not path.is_file():
        return str(file)
    digest = hashlib.sha256()
    with path.open('rb') as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
    return f'{path.name} (sha256 {digest.hexdigest()})'


def config_identity(cfg: Config, *, classes: Sequence[str]) -> str:
    """Return the name of a config and the SHA-256 of what it says about predictions.

    Args:
        cfg: What ``prepare_config`` left.
        classes: Names by number.
    """
    content = cfg.to_dict()
    entries = repr(([content.get(name) for name in _ENTRIES], tuple(classes)))
    name = Path(cfg.filename).name if cfg.filename else 'config'
    return f'{name} (sha256 {hashlib.sha256(entries.encode(errors="replace")).hexdigest()})'
