"""Refuse requests: an HTTP status, one sentence, and perhaps when to try again."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

# Number of clients that are remembered; beyond it the oldest are forgotten.
_MOST_CLIENTS = 10_000


class Refusal(Exception):
    """A request that is not answered with a prediction.

    Attributes:
        status: HTTP status.
        message: The reason, one sentence.
        retry_after_s: When to try again; ``None`` if trying again does not help.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of the answer."""
        if self.retry_after_s is None:
            return {}
        return {'Retry-After': str(max(1, math.ceil(self.retry_after_s)))}


class RateLimiter:
    """Limit the requests of each client by a token bucket.

    A client may send ``per_second`` requests at once (but at least one), and as many per second in
    the long run.

    Args:
        per_second: Requests per second and client.
        clock: Returns seconds.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = max(1.0, per_second)
        self._clock = clock
        # Tokens of each client, and when they were counted.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Count a request.

        Raises:
            Refusal: If the client has sent too many.
        """
        now = self._clock()
        tokens, counted = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted) * self._per_second)
        is_allowed = tokens >= 1
        self._buckets[client] = (tokens - is_allowed, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if not is_allowed:
            raise Refusal(
                429,
                f'too many requests: {self._per_second:g} per second are allowed',
                retry_after_s=(1 - tokens) / self._per_second,
            )
