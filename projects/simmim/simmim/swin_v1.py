"""Record the activations of a Swin Transformer V1 beside V2 (paper figures 2 and 3)."""

from __future__ import annotations

import torch
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.models import SwinTransformer

from swinv2_mm.analysis.signal import SignalRecorder
from swinv2_mm.analysis.signal_hook import SignalHook
from swinv2_mm.errors import UserError


class SwinV1SignalRecorder(SignalRecorder):
    """Record the same amplitudes as its base, of the blocks of mmpretrain's ``SwinTransformer``.

    V1 blocks normalise before attention and MLP; what these give is added as it is.
    """

    def attach(self, backbone: SwinTransformer) -> list[torch.utils.hooks.RemovableHandle]:
        """Record from now on; the handles end it."""
        handles = []
        for i, stage in enumerate(backbone.stages):
            for j, block in enumerate(stage.blocks):
                # The FFN adds the main branch itself; its layers come before that.
                places = {'main': block, 'attention': block.attn, 'mlp': block.ffn.layers}
                for place, module in places.items():
                    handles.append(module.register_forward_hook(self._hook(f'{place}/{i}.{j}')))
        return handles


@HOOKS.register_module()
class SwinV1SignalHook(SignalHook):
    """``SignalHook`` for a model whose ``backbone`` is mmpretrain's ``SwinTransformer``."""

    def __init__(self, *, interval: int = 100) -> None:
        super().__init__(interval=interval)
        self.recorder = SwinV1SignalRecorder()
        self.recorder.is_active = False

    def before_train(self, runner: Runner) -> None:
        """Begin to listen.

        Raises:
            UserError: If the backbone is another one.
        """
        found = [m for m in runner.model.modules() if isinstance(m, SwinTransformer)]
        if len(found) != 1:
            raise UserError(f'SwinV1SignalHook needs one SwinTransformer, found {len(found)}')
        self._handles = self.recorder.attach(found[0])
