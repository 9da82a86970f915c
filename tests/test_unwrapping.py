"""A model is found whatever was put around it."""

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from swinv2_mm.core.unwrapping import unwrapped


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2)


@pytest.mark.parametrize(
    'wrap',
    [nn.DataParallel, torch.compile, AveragedModel, ExponentialMovingAverage, checkpoint_wrapper],
    ids=lambda wrap: wrap.__name__,
)
def test_wrappers(wrap):
    wrapped = wrap(Model())
    assert type(unwrapped(wrapped)) is Model
    assert type(unwrapped(nn.DataParallel(wrapped))) is Model


def test_what_is_no_wrapper_stays():
    model = Model()
    assert unwrapped(model) is model
    backbone_only = nn.Sequential()
    backbone_only.add_module('backbone', model)
    assert unwrapped(backbone_only) is backbone_only
    both = nn.Sequential()
    both.add_module('module', model)
    both.add_module('head', nn.Linear(2, 2))
    assert unwrapped(both) is both
