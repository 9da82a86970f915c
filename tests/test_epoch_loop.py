"""The rest of an epoch is the rest, whatever the sampler and the workers."""

import pytest
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader, Dataset

from swinv2_mm.engine.epoch_loop import RestOfEpoch


class Pictures(Dataset):
    """Tall and wide ones by turns of three, so that batches of one kind fill up irregularly."""

    def __len__(self):
        return 26

    def __getitem__(self, index):
        return int(index)

    def get_data_info(self, index):
        return {'width': 2, 'height': 1 if index % 3 else 3}


def epochs(num_workers, start=None):
    """The batches of two epochs."""
    batches = AspectRatioBatchSampler(DefaultSampler(Pictures(), seed=1), batch_size=4)
    loader = DataLoader(
        Pictures(), batch_sampler=batches, num_workers=num_workers, collate_fn=list,
        persistent_workers=num_workers > 0,
    )  # fmt: skip
    if start is not None:
        vars(loader)['batch_sampler'] = RestOfEpoch(loader.batch_sampler, start=start)
        assert len(loader) == 7 and loader.batch_sampler.sampler is batches.sampler
    return [list(loader) for _ in range(2)]


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('start', [1, 6, 7])
def test_the_rest_of_an_epoch_and_the_whole_of_the_next(start, num_workers):
    first, second = epochs(0)
    assert len(first) == 7
    assert epochs(num_workers, start) == [first[start:], second]
