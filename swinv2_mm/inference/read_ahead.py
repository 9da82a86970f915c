"""Take items from an iterable in a thread while the caller works on earlier ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar('T')
_END: Any = object()


def read_ahead(items: Iterable[T], *, depth: int) -> Iterator[T]:
    """Yield items in order; a thread holds up to ``depth`` more ready.

    An error of the iterable is raised where its item would be. No thread is left behind when the
    generator is closed.
    """
    iterator = iter(items)
    waiting: deque = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for _ in range(depth):
                waiting.append(reader.submit(next, iterator, _END))
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(reader.submit(next, iterator, _END))
                yield item
        finally:
            reader.shutdown(cancel_futures=True)
            if hasattr(iterator, 'close'):
                iterator.close()
