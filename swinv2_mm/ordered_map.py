"""Work a few items ahead in threads, and hand out the results in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')
_END: Any = object()


def map_in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_threads: int,
    num_ahead: int,
) -> Iterator[tuple[Item, Future[Result]]]:
    """Call a function for each item in threads.

    Args:
        function: May be called by several threads at a time.
        items: Taken as they are needed, in the thread of the caller.
        num_threads: Calls at a time.
        num_ahead: Items that are taken before the result of the first one is handed out.

    Yields:
        Each item, in order, with the future that has its result or its exception.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    threads = ThreadPoolExecutor(num_threads)
    items = iter(items)
    try:
        while True:
            for item in itertools.islice(items, num_ahead + 1 - len(waiting)):
                waiting.append((item, threads.submit(function, item)))
            if not waiting:
                return
            yield waiting.popleft()
    finally:
        threads.shutdown(cancel_futures=True)


def read_ahead(items: Iterable[Item], *, num_ahead: int) -> Iterator[Item]:
    """Take items from an iterable in a thread while the caller works on earlier ones.

    An error of the iterable is raised where its item would be. No thread is left behind when the
    generator is closed.
    """
    iterator = iter(items)
    calls = map_in_threads(
        lambda _: next(iterator, _END), itertools.repeat(None), num_threads=1, num_ahead=num_ahead
    )
    try:
        with closing(calls):
            for _, future in calls:
                if (item := future.result()) is _END:
                    return
                yield item
    finally:
        if hasattr(iterator, 'close'):
            iterator.close()
