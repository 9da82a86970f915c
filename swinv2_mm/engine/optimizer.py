"""Build optimizer parameter groups for a model with a SwinV2 backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.core.unwrapping import unwrapped

from .parameter_rules import backbone_depth, is_decayed


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SwinV2OptimWrapperConstructor:
    """Build an optimizer wrapper by the rules of ``parameter_rules``, for any of the libraries.

    Parameters of equal rate and decay share a group, so that fused updates stay fused.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with the optimiser under ``optimizer``.
        paramwise_cfg: ``layer_decay_rate`` (rate of a layer relative to the next deeper one,
            1 by default) and ``backbone_lr_mult`` (rate of the backbone relative to the rest,
            1 by default).

    Raises:
        ValueError: If ``paramwise_cfg`` has another key, or the optimiser no learning rate.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        cfg = dict(paramwise_cfg or {})
        self.layer_decay_rate = cfg.pop('layer_decay_rate', 1.0)
        self.backbone_lr_mult = cfg.pop('backbone_lr_mult', 1.0)
        if cfg:
            raise ValueError(
                f'paramwise_cfg takes layer_decay_rate and backbone_lr_mult, not {sorted(cfg)}'
            )
        self.optim_wrapper_cfg = optim_wrapper_cfg.copy()
        self.optimizer_cfg = dict(self.optim_wrapper_cfg.pop('optimizer'))
        if 'lr' not in self.optimizer_cfg:
            raise ValueError('optim_wrapper.optimizer needs a learning rate, lr=...')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper for the trainable parameters of ``model``."""
        groups = self.param_groups(unwrapped(model))
        rates = sorted({group['lr'] for group in groups})
        trained = [parameter for group in groups for parameter in group['params']]
        print_log(
            f'model: {type(unwrapped(model)).__name__}, {_millions(trained)} trainable parameters '
            f'of {_millions(model.parameters())}, {len(groups)} groups, learning rates '
            f'{rates[0]:.3g} to {rates[-1]:.3g}',
            logger='current',
        )
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        cfg = {'type': 'OptimWrapper', **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(cfg, default_args={'optimizer': optimizer})

    def param_groups(self, model: nn.Module) -> list[dict]:
        """Group the trainable parameters by learning rate and weight decay."""
        backbones = {
            f'{name}.' if name else '': rule
            for name, module in model.named_modules()
            if (rule := _depth_rule(module)) is not None
        }
        if not backbones and (self.layer_decay_rate, self.backbone_lr_mult) != (1.0, 1.0):
            raise ValueError(
                'paramwise_cfg: the model has no backbone whose layers are known (a SwinV2, or '
                'one with depths and parameter_depth); leave the settings out'
            )
        lr, weight_decay = self.optimizer_cfg['lr'], self.optimizer_cfg.get('weight_decay', 0.0)
        groups: dict[tuple, dict] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            mult = 1.0
            for prefix, (num_layers, depth_of) in backbones.items():
                if name.startswith(prefix):
                    distance = num_layers - depth_of(name[len(prefix) :])
                    mult = self.backbone_lr_mult * self.layer_decay_rate**distance
            # By rule, not by value: a training is resumed with a decay of 0 too.
            is_decaying = is_decayed(name, parameter)
            decay = weight_decay if is_decaying else 0.0
            group = groups.setdefault(
                (mult, is_decaying), {'params': [], 'lr': lr * mult, 'weight_decay': decay}
            )
            group['params'].append(parameter)
        return list(groups.values())


def _millions(parameters: Iterable[nn.Parameter]) -> str:
    return f'{sum(parameter.numel() for parameter in parameters) / 1e6:.2f} M'


def _depth_rule(module: nn.Module) -> tuple[int, Callable[[str], int]] | None:
    """Return the depth of a head on a backbone, and the function from name to depth in it.

    ``None`` if a module is no backbone. Others than SwinV2 bring ``depths`` and
    ``parameter_depth`` with them.
    """
    if isinstance(module, SwinTransformerV2):
        depths = module.arch.depths
        return sum(depths) + 1, partial(backbone_depth, depths=depths)
    if hasattr(module, 'parameter_depth'):
        return sum(module.depths) + 1, module.parameter_depth
    return None
