"""Call a function in threads, a few items ahead, and hand out the results in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


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
        items: Are taken, in the thread of the caller, as they are needed.
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
