"""A sample's seed reaches it through the data sets that wrap others."""

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from swinv2_mm.engine.seeding import Draw


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
