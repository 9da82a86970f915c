"""Resume a training in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import Sampler


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's EpochBasedTrainLoop, resumed at the batch at which the epoch was interrupted.

    MMEngine's own begins the epoch anew. ``CheckedRunner`` puts this one in its place.

    Attributes:
        first_batch: Batches of the coming epoch that have been trained on already.
    """

    first_batch = 0

    def run_epoch(self) -> None:
        """Train on the rest of an epoch."""
        if self.first_batch:
            # DataLoader forbids setting this attribute.
            vars(self.dataloader)['batch_sampler'] = RestOfEpoch(
                self.dataloader.batch_sampler, start=self.first_batch
            )
        super().run_epoch()
        self.first_batch = 0

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Train on a batch.

        Args:
            idx: Number of the batch, counted from where the run went on.
            data_batch: Batch of the loader.
        """
        super().run_iter(idx + self.first_batch, data_batch)


class RestOfEpoch:
    """Batch sampler that skips its first batches, once.

    Their indices are drawn and dropped, so that whatever state the sampler has is what it was;
    no sample of them is loaded.
    """

    def __init__(self, batches: Sampler, *, start: int) -> None:
        self.batches, self.start = batches, start

    def __iter__(self) -> Iterator[list[int]]:
        # Reset at the first batch, not at the call: a loader with workers makes two and uses one.
        start, self.start = self.start, 0
        yield from islice(self.batches, start, None)

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        # Hooks ask a batch sampler for its sampler. Guarded: copying asks before there are any.
        if name == 'batches':
            raise AttributeError(name)
        return getattr(self.batches, name)
