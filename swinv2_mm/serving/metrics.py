"""Count and time requests and batches for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from .web_packages import prometheus_client as prometheus

# Bounds of histogram buckets: from an image of 64 px to a large detector on a CPU.
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)
_PREFIX = 'swinv2_mm'


class Metrics:
    """The metrics of one server, in a registry of their own.

    Args:
        num_open: Returns how many requests are being read, wait or are computed.
    """

    def __init__(self, num_open: Callable[[], int]) -> None:
        self._registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self._registry)
        self._requests = prometheus.Counter(
            'requests',
            'Requests to /predict by HTTP status; 499: the client went away.',
            ['status'],
            namespace=_PREFIX,
            registry=self._registry,
        )
        self._seconds = prometheus.Histogram(
            'request_seconds',
            'Time from the first byte of a request to its answer.',
            namespace=_PREFIX,
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._batch_images = prometheus.Histogram(
            'batch_images',
            'Images that went through the model together.',
            namespace=_PREFIX,
            registry=self._registry,
            buckets=_IMAGES,
        )
        self._batch_seconds = prometheus.Histogram(
            'batch_seconds',
            'Time of the model for a batch.',
            namespace=_PREFIX,
            registry=self._registry,
            buckets=_SECONDS,
        )
        prometheus.Gauge(
            'open_requests',
            'Requests that are being read, wait or are computed.',
            namespace=_PREFIX,
            registry=self._registry,
        ).set_function(num_open)

    def request(self, status: int, *, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def batch(self, num_images: int, *, seconds: float) -> None:
        """Count a batch."""
        self._batch_images.observe(num_images)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return prometheus.generate_latest(self._registry)
