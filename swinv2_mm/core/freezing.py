"""Keep parts of a backbone as they are in training: stem, first stages, batch statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from .torch_private import BatchNorm

if TYPE_CHECKING:
    from .swin_transformer_v2 import SwinTransformerV2


def freeze(model: SwinTransformerV2) -> None:
    """Take the gradients from what is not trained, by ``frozen_stages`` and ``out_indices``."""
    last = max(model.out_indices)
    # What comes after the last returned map gets no gradient: a distributed wrapper would
    # wait for it.
    unused = [*model.layers[last + 1 :], *filter(None, [model.layers[last].downsample])]
    for module in (*_frozen_modules(model), *unused):
        module.requires_grad_(False)


def set_frozen_to_eval(model: SwinTransformerV2) -> None:
    """Set frozen parts to eval, and batch norms too with ``norm_eval``."""
    for module in _frozen_modules(model):
        module.eval()
    if model.norm_eval:
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.eval()


def _frozen_modules(model: SwinTransformerV2) -> list[nn.Module]:
    modules: list[nn.Module] = []
    if model.frozen_stages >= 0:
        modules.append(model.patch_embed)
    for i, stage in enumerate(model.layers[: model.frozen_stages + 1]):
        modules.append(stage.get_submodule('blocks'))
        if i < model.frozen_stages and stage.downsample is not None:
            modules.append(stage.downsample)
        if i in model.out_indices:
            modules.append(model.get_submodule(f'norm{i}'))
    return modules
