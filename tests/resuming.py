"""What a resumed training must share with one that was never interrupted: everything."""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

# How long things took, where files are, the commit: of the run, not of the training.
OF_THE_RUN = ('time', 'memory', 'images_per_s', 'experiment_name', 'cfg', '_ckpt', '_version')
PARTS = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'gradients')


@OPTIM_WRAPPERS.register_module()
class LossScaledOptimWrapper(AmpOptimWrapper):
    """MMEngine's, which fp16 asks for; under this name the project does not ask for a GPU."""


def differences(one, other, *, at=''):
    """Names of what differs by a bit between two trees of tensors, numbers and histories."""
    if isinstance(one, HistoryBuffer):
        one, other = ([*part._log_history, *part._count_history] for part in (one, other))
    if type(one) is not type(other):
        return [f'{at}: {type(one).__name__} and {type(other).__name__}']
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f'{at}: {sorted(map(str, one.keys() ^ other.keys()))}']
        return [d for key in one for d in differences(one[key], other[key], at=f'{at}.{key}')]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f'{at}: {len(one)} and {len(other)} entries']
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, at=f'{at}.{i}')]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
    else:
        same = np.array_equal(one, other)
    return [] if same else [at]


def checkpoint_differences(one, other):
    """Names of what differs between the training in two files, the logged history included."""
    one, other = (torch.load(path, weights_only=False) for path in (one, other))
    found = differences(*({k: c[k] for k in PARTS if k in c} for c in (one, other)))
    for part in ('log_scalars', 'runtime_info'):
        hubs = (c['message_hub'][part] for c in (one, other))
        hubs = [{k: v for k, v in hub.items() if not k.endswith(OF_THE_RUN)} for hub in hubs]
        found += differences(*hubs, at=f'.{part}')
    metas = [
        {k: c['meta'].get(k) for k in ('epoch', 'iter', 'seed', 'batch')} for c in (one, other)
    ]
    return found + differences(*metas, at='.meta')
