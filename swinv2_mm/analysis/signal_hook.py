"""Log the amplitude of activations while training."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from swinv2_mm.checkpoint.loading import find_backbone
from swinv2_mm.errors import UserError

from .signal import SignalRecorder


@HOOKS.register_module()
class SignalHook(Hook):
    """Log the amplitude of each block as scalars ``signal/main/2.1`` and so on.

    Amplitudes that grow without bound announce a divergence before the loss shows it (paper
    section 3.2). In a config:

        custom_imports = dict(imports=['swinv2_mm.models', 'swinv2_mm.analysis.signal_hook'])
        custom_hooks = [dict(type='SignalHook', interval=100)]

    Args:
        interval: Iterations from one measurement to the next; the first one is measured too.
    """

    def __init__(self, *, interval: int = 100) -> None:
        if interval < 1:
            raise ValueError(f'interval of SignalHook must be positive, got {interval}')
        self.interval = interval
        self.recorder = SignalRecorder()
        self.recorder.is_active = False
        self._handles: list = []

    def before_train(self, runner: Runner) -> None:
        """Register the forward hooks.

        Raises:
            UserError: If the model does not have one SwinV2 backbone.
        """
        try:
            backbone = find_backbone(runner.model)
        except ValueError as error:
            raise UserError(f'SignalHook: {error}') from error
        self._handles = self.recorder.attach(backbone)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Measure in the first and every ``interval``-th iteration only."""
        self.recorder.is_active = runner.iter == 0 or (runner.iter + 1) % self.interval == 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Write what was measured."""
        if self.recorder.is_active:
            scalars = {f'signal/{k}': v for k, v in self.recorder.amplitudes().items()}
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
            self.recorder.reset()
            self.recorder.is_active = False

    def after_train(self, runner: Runner) -> None:
        """Remove the forward hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
