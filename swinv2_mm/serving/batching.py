"""Collect the images of concurrent requests into batches for the model."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference import Prediction, SwinV2Inferencer
from swinv2_mm.inference.preparation import LoadedInput

from .metrics import Metrics
from .refusals import Refusal


@dataclass
class _Waiting:
    loaded: LoadedInput
    future: asyncio.Future[Prediction]
    since: float = field(default_factory=time.monotonic)


class RecentPeak:
    """The largest of the numbers that were added in this second and the one before.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second = 0
        self._before = self._now = 0

    def add(self, number: int) -> None:
        """Take a number into account."""
        self._go_on()
        self._now = max(self._now, number)

    @property
    def value(self) -> int:
        """The largest; 0 if there was none."""
        self._go_on()
        return max(self._before, self._now)

    def _go_on(self) -> None:
        second = int(self._clock())
        if second != self._second:
            self._before = self._now if second == self._second + 1 else 0
            self._second, self._now = second, 0


class Batcher:
    """Run the model on batches of images that wait, in a thread of its own.

    Only images of one size (as the pipeline leaves them) go together. A batch starts when it is
    full, when it has as many images as were here at once lately (so that one client alone does not
    wait), or when its oldest has waited for ``max_wait_s``. While the model works, the next one
    collects.

    Args:
        inferencer: Predicts the batches.
        max_images: Most images of a batch.
        max_wait_s: Longest wait for others.
        metrics: Count batches.
    """

    def __init__(
        self,
        inferencer: SwinV2Inferencer,
        *,
        max_images: int,
        max_wait_s: float,
        metrics: Metrics,
    ) -> None:
        self._inferencer = inferencer
        self._max_images = max_images
        self._max_wait_s = max_wait_s
        self._metrics = metrics
        self._num_here = 0
        self._peak = RecentPeak()
        self._groups: OrderedDict[tuple[int, ...], deque[_Waiting]] = OrderedDict()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='model')
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether batches are being run."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to run batches, in the running event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End after the batch that runs; what waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def predict(self, loaded: LoadedInput) -> Prediction:
        """Predict for an image in a batch with others.

        Raises:
            UserError: If the image does not fit into the memory, or the model does not take it.
            Refusal: If the model fails on it.
        """
        waiting = _Waiting(loaded, asyncio.get_running_loop().create_future())
        self._groups.setdefault(loaded.shape, deque()).append(waiting)
        self._num_here += 1
        self._peak.add(self._num_here)
        self._arrived.set()
        try:
            return await waiting.future
        finally:
            self._num_here -= 1

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            images = [waiting.loaded for waiting in batch]
            start = time.monotonic()
            results: Sequence[Prediction | Exception]
            try:
                results = await loop.run_in_executor(
                    self._thread, run_batch, self._inferencer, images
                )
            except Exception as error:
                # Whatever the error is, the next batch runs.
                results = [error] * len(batch)
            self._metrics.batch(len(batch), seconds=time.monotonic() - start)
            for waiting, result in zip(batch, results, strict=True):
                # The future of an abandoned request is cancelled.
                if not waiting.future.done():
                    if isinstance(result, Exception):
                        waiting.future.set_exception(result)
                    else:
                        waiting.future.set_result(result)

    async def _next_batch(self) -> list[_Waiting]:
        """Wait until a batch is due, and take it."""
        while True:
            self._arrived.clear()
            seconds = None
            if groups := self._drop_cancelled():
                oldest = min(groups, key=lambda group: group[0].since)
                seconds = oldest[0].since + self._max_wait_s - time.monotonic()
                if seconds <= 0:
                    return self._take(oldest)
                enough = min(self._max_images, self._peak.value)
                if due := [group for group in groups if len(group) >= enough]:
                    return self._take(due[0])
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), seconds)

    def _drop_cancelled(self) -> list[deque[_Waiting]]:
        for shape, group in list(self._groups.items()):
            left = deque(waiting for waiting in group if not waiting.future.done())
            if left:
                self._groups[shape] = left
            else:
                del self._groups[shape]
        return list(self._groups.values())

    def _take(self, group: deque[_Waiting]) -> list[_Waiting]:
        return [group.popleft() for _ in range(min(len(group), self._max_images))]


def run_batch(
    inferencer: SwinV2Inferencer, batch: list[LoadedInput]
) -> list[Prediction | Exception]:
    """Predict for each image of a batch; one that fails does not stop the others.

    Returns:
        A prediction, or what went wrong, for each image.
    """
    refused: dict[int, str] = {}

    def refuse(source: object, reason: str) -> None:
        refused[id(source)] = reason

    try:
        found = {id(p.source): p for p in inferencer.predict(batch, on_error=refuse)}
    except Exception as error:
        if len(batch) == 1 and isinstance(error, UserError):
            return [error]
        if len(batch) == 1:
            traceback.print_exc()
            return [Refusal(500, 'the model failed on this image; the log has the reason')]
        found = None
    if found is None:
        return [result for loaded in batch for result in run_batch(inferencer, [loaded])]
    return [
        found[key] if (key := id(loaded.source)) in found else DataError(refused[key])
        for loaded in batch
    ]
