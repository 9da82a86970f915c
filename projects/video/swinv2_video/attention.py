"""The attention backends that take maps of a video, whose windows have three sides."""

from __future__ import annotations

from swinv2_mm.core.attention import Backend
from swinv2_mm.core.attention.eager import at_once, eager

VIDEO_BACKENDS: dict[str, Backend] = {'eager': eager, 'sdpa': at_once}


def resolve_video_backend(name: str) -> Backend:
    """Return a backend by name; ``auto`` is ``sdpa``.

    Raises:
        ValueError: If there is no such backend for videos.
    """
    backend = VIDEO_BACKENDS.get('sdpa' if name == 'auto' else name)
    if backend is None:
        known = ', '.join(['auto', *VIDEO_BACKENDS])
        raise ValueError(f"no attention '{name}' for videos (known: {known})")
    return backend
