"""List the keys that a node of a config accepts: the arguments of the class built from it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from .entries import ENTRIES

# Dictionaries whose keys are names that the user makes up.
_FREE_FORM = ('default_hooks', 'custom_keys', 'vis_backends', 'metainfo')
# Entries that the Runner reads from a config, beside its own arguments.
RUNNER_ENTRIES = frozenset(
    {
        'activation_checkpointing',
        'compile',
        'efficient_conv_bn_eval',
        'find_unused_parameters',
        'model_wrapper_cfg',
        'sync_bn',
    }
)
# Keys that the Runner takes out of a loader before torch gets the rest.
LOADER_KEYS = frozenset(
    {
        'batch_sampler',
        'collate_fn',
        'dataset',
        'disable_subprocess_warning',
        'num_batch_per_epoch',
        'sampler',
        'worker_init_fn',
    }
)
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_OWN_CONSTRUCTOR = 'SwinV2OptimWrapperConstructor'
OWN_PARAMWISE = frozenset({'backbone_lr_mult', 'layer_decay_rate'})
PARAMWISE = frozenset(
    {
        'bias_decay_mult',
        'bias_lr_mult',
        'bypass_duplicate',
        'custom_keys',
        'dcn_offset_lr_mult',
        'dwconv_decay_mult',
        'flat_decay_mult',
        'norm_decay_mult',
    }
)
# Functions, classes and further keys that a part of the config without a ``type`` goes to.
_PASSED_ON: dict[str, tuple[Sequence[Callable], Iterable[str]]] = {
    **{loader: ((DataLoader.__init__,), LOADER_KEYS) for loader in _LOADERS},
    'train_cfg': ((EpochBasedTrainLoop.__init__, IterBasedTrainLoop.__init__), {'by_epoch'}),
    'val_cfg': ((ValLoop.__init__,), ()),
    'test_cfg': ((TestLoop.__init__,), ()),
    'optim_wrapper': ((OptimWrapper.__init__,), {'constructor', 'paramwise_cfg'}),
    'optim_wrapper.clip_grad': (
        (nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_),
        {'type'},
    ),
    'param_scheduler': ((), {'convert_to_iter_based'}),
    'auto_scale_lr': ((), {'base_batch_size', 'enable'}),
    'log_processor': ((LogProcessor.__init__,), ()),
    'visualizer': ((Visualizer.__init__,), ()),
    'randomness': ((Runner.set_randomness,), ()),
    'compile': ((torch.compile,), ()),
    'env_cfg': ((), {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'}),
    'env_cfg.mp_cfg': ((set_multi_processing,), ()),
    'env_cfg.dist_cfg': ((init_dist, torch.distributed.init_process_group), ()),
}


def top_level_keys() -> set[str]:
    """Return the top-level entries of a config that something reads."""
    taken = _arguments((Runner.__init__,)) - {'cfg'}
    return taken | RUNNER_ENTRIES | ENTRIES.keys() | {'custom_imports'}


def accepted_keys(cfg: Config, node: Any, path: Sequence[str]) -> set[str] | None:
    """Return the keys that may be set at a place of a config; ``None`` if any may.

    Args:
        cfg: The whole config.
        node: What it has at the place.
        path: The keys that lead there.
    """
    if not path:
        return top_level_keys() | set(cfg)
    if path[-1] in _FREE_FORM:
        return None
    if not isinstance(node, dict):
        return set()
    taken = _constructor_arguments(cfg, node.get('type')) or set()
    if path[-1] == 'paramwise_cfg':
        constructor = cfg.optim_wrapper.get('constructor', 'DefaultOptimWrapperConstructor')
        known = {_OWN_CONSTRUCTOR: OWN_PARAMWISE, 'DefaultOptimWrapperConstructor': PARAMWISE}
        if constructor not in known:
            return None
        taken |= known[constructor]
    functions, others = _PASSED_ON.get('.'.join(p for p in path if not p.isdecimal()), ((), ()))
    return set(node) | taken | _arguments(functions) | set(others)


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name closest to ``name``, for "did you mean"."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)), None)


def _arguments(functions: Iterable[Callable]) -> set[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if name != 'self' and parameter.kind not in kinds
    }


def _constructor_arguments(cfg: Config, name: Any) -> set[str] | None:
    """Arguments of the registered class ``name`` and its bases; ``None`` if there is no such."""
    if not isinstance(name, str):
        return None
    if not DefaultScope.check_instance_created('options'):
        DefaultScope.get_instance('options', scope_name=cfg.get('default_scope', 'mmengine'))
    for root in vars(registry).values():
        if isinstance(root, Registry):
            with root.switch_scope_and_registry(cfg.get('default_scope')) as scoped:
                found = scoped.get(name)
            if inspect.isclass(found):
                bases = (base for base in found.__mro__ if '__init__' in vars(base))
                return _arguments(base.__init__ for base in bases) | {'type'}
    return None
