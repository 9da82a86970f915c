"""Every draw of a sample has a seed of its own, which data sets that wrap others pass on."""

from itertools import islice

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from swinv2_mm.engine.seeding import Draw, SeededInfiniteSampler, SeededSampler


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
