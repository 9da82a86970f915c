"""Every draw of a sample has a seed of its own, which data sets that wrap others pass on."""

from itertools import islice

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from swinv2_mm.engine.seeding import (
    Draw,
    SeededInfiniteSampler,
    SeededRepeatSampler,
    SeededSampler,
)


class Numbers(BaseDataset):
    """Five samples that show the index that they were asked for by."""

    def load_data_list(self):
        return [{} for _ in range(5)]


def numbers():
    return Numbers(serialize_data=False)


@pytest.mark.parametrize(
    'dataset', [numbers(), ConcatDataset([numbers(), numbers()]), RepeatDataset(numbers(), 2)]
)
def test_every_sample_knows_its_draw(dataset):
    for index in range(len(dataset)):
        found = dataset[Draw(index, (3, index))]['sample_idx']
        assert isinstance(found, Draw) and found.entropy == (3, index)
        assert int(found) == index % 5


@pytest.mark.parametrize('sampler', [SeededSampler, SeededInfiniteSampler])
def test_no_two_processes_share_a_seed(sampler, monkeypatch):
    draws = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        draws += islice(sampler(numbers(), seed=7), 3)
    assert {int(draw) for draw in draws} == set(range(5))
    assert len({draw.entropy for draw in draws}) == 6


def test_repeated_augmentation_draws_each_image_several_times(monkeypatch):
    found = {}
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        sampler = SeededRepeatSampler(range(30), num_repeats=3, seed=1)
        found[rank] = list(sampler)
        assert len(found[rank]) == len(sampler) == 15
        sampler.set_epoch(1)
        assert list(sampler) != found[rank]
    both = [draw for pair in zip(found[0], found[1], strict=True) for draw in pair]
    # A third of the images, each three times, one after another over the processes.
    assert len(set(both)) == 10 and both[::3] == both[1::3] == both[2::3]
    assert len({draw.entropy for draw in both}) == 30
    assert len(list(SeededRepeatSampler(range(1), num_repeats=1, seed=1))) == 1
