"""Make random numbers depend on the seed and the position in training only.

MMEngine seeds a run once. What is drawn later then depends on all that ran before, and a resumed
run differs from an uninterrupted one in augmentation, drop path and the samplers of a detector.
Here every iteration and every sample has a seed of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence, Sized
from functools import partial
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS, TRANSFORMS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and torch (all devices) from a few non-negative numbers."""
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Draw(int):
    """The index of a sample that remembers where in training it is drawn.

    Attributes:
        entropy: What ``seed_everything`` takes for this draw.
    """

    entropy: tuple[int, ...]

    def __new__(cls, index: int, entropy: tuple[int, ...]) -> Draw:
        """Make an index of a plain one."""
        draw = super().__new__(cls, index)
        draw.entropy = entropy
        return draw

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:
        return int(self), self.entropy

    # ConcatDataset and RepeatDataset compute the index inside of the data set that they wrap.
    def __sub__(self, other: int) -> Draw:
        return Draw(int(self) - other, self.entropy)

    def __mod__(self, other: int) -> Draw:
        return Draw(int(self) % other, self.entropy)


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(InfiniteSampler):
    """``InfiniteSampler`` whose indices carry a seed each, for iteration-based training."""

    def _infinite_indices(self) -> Iterator[Draw]:
        for position, index in enumerate(super()._infinite_indices()):
            yield Draw(index, (self.seed, position))


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """``DefaultSampler`` whose indices carry a seed each, for epoch-based training."""

    def __iter__(self) -> Iterator[Draw]:
        for position, index in enumerate(super().__iter__()):
            yield Draw(index, (self.seed, self.epoch, self.rank, position))


@DATA_SAMPLERS.register_module()
class SeededRepeatSampler(SeededSampler):
    """Repeated augmentation (arXiv 1902.05509): a part of the images, each several times.

    Copies of an image, differently augmented, go to different processes where there are several;
    an epoch has as many samples as without repetition.

    Args:
        dataset: Anything with a length.
        num_repeats: Copies of an image.
        seed: As of ``DefaultSampler``.
    """

    def __init__(self, dataset: Sized, *, num_repeats: int = 3, seed: int | None = None) -> None:
        super().__init__(dataset, seed=seed)
        self.num_repeats = num_repeats

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)
        copies = order.repeat_interleave(self.num_repeats).tolist()
        # Where copies are fewer than samples: one image, several processes.
        copies *= -(-self.total_size // len(copies))
        mine = copies[self.rank : self.total_size : self.world_size]
        for position, index in enumerate(mine):
            yield Draw(index, (self.seed, self.epoch, self.rank, position))


def use_seeded_sampler(cfg: Mapping[str, Any]) -> None:
    """Have a training draw by the seeded form of MMEngine's samplers, which order alike."""
    sampler = (cfg.get('train_dataloader') or {}).get('sampler')
    kind = sampler.get('type') if isinstance(sampler, dict) else None
    for seeded in (SeededSampler, SeededInfiniteSampler):
        plain = seeded.__base__
        if kind is plain or kind in (plain.__name__, f'mmengine.{plain.__name__}'):
            sampler['type'] = seeded.__name__


def seed_samples(loader: DataLoader) -> None:
    """Have a loader seed itself before each sample whose index carries a seed.

    The seed is set before the data set is indexed, so that its wrappers may draw numbers too.
    """
    if isinstance(loader.dataset, Dataset):
        loader.dataset.__getitems__ = partial(_seeded_samples, loader.dataset)


def reseed_sampler(loader: DataLoader, *, old: int, new: int) -> None:
    """Give a loader's sampler another seed, where it has the one that the run began with."""
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        if getattr(sampler, 'seed', None) == old:
            sampler.seed = new


def _seeded_samples(dataset: Dataset, indices: Sequence[int]) -> list:
    samples = []
    for index in indices:
        if isinstance(index, Draw):
            seed_everything(*index.entropy)
        samples.append(dataset[index])
    return samples


@TRANSFORMS.register_module()
class SeedAugmentation(BaseTransform):
    """Seed what follows in a training pipeline; goes before the first random transform.

    Needs one of the samplers above; an index from another sampler changes nothing.
    """

    def transform(self, results: dict) -> dict:
        """Return ``results`` as they are."""
        index = results.get('sample_idx')
        if isinstance(index, Draw):
            seed_everything(*index.entropy)
            results['sample_idx'] = int(index)
        return results


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed every training iteration of every process."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Seed what the model draws in this iteration."""
        seed_everything(runner.seed, runner.rank, runner.iter)
