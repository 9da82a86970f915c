"""Handle preemption: on SIGTERM or SIGUSR1 save a checkpoint, then exit."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from swinv2_mm.core.torch_private import LoaderIterator
from swinv2_mm.errors import UserError
from swinv2_mm.mmengine_private import is_training

from .checkpoint_hook import SafeCheckpointHook
from .parallel import process_timeout
from .workers import STOP_SIGNALS

# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again.
PREEMPTED_STATUS = 75
# torchrun passes on what the scheduler has sent to every process already: one signal, not two.
_ECHO_S = 2.0
# Code in which a training only waits: none of its state is half-changed there.
_WAITING = {
    LoaderIterator.__next__.__code__,
    DataLoader.__iter__.__code__,
    Evaluator.evaluate.__code__,
}


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM or SIGUSR1, save a checkpoint after the iteration and exit with status 75.

    One process saves at once where it only waits: for data, or for a validation to end. Several
    agree after each iteration and stop together, whichever got the signal. A second signal,
    later than 2 s, ends the process where it is. What is saved is ``preempted.pth`` in the work
    dir, which ``--resume`` finds. Needs ``SafeCheckpointHook``.
    """

    # Runs after all else in an iteration: EMA, schedules, the regular checkpoint.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signalled_at: float | None = None
        self._is_started = self._is_validating = False
        self._previous: dict[int, Any] = {}
        self._group: dist.ProcessGroup | None = None

    def before_run(self, runner: Runner) -> None:
        """Install the signal handlers, if this is a training."""
        if is_training(runner) and threading.current_thread() is threading.main_thread():
            handler = partial(self._receive, runner, os.getpid())
            self._previous = {number: signal.signal(number, handler) for number in STOP_SIGNALS}

    def before_train(self, runner: Runner) -> None:
        """Enable saving: the model is built.

        Raises:
            UserError: If there is no hook that can.
        """
        if not _savers(runner):
            raise UserError('PreemptionHook needs default_hooks.checkpoint: SafeCheckpointHook')
        if runner.world_size > 1:
            # On the CPU, where asking does not wait for what a GPU still has to do.
            self._group = dist.new_group(backend='gloo', timeout=process_timeout(runner.cfg))
        self._is_started = True

    def before_val_epoch(self, runner: Runner) -> None:
        """Record that averaged weights (EMA) may be in the place of the trained ones."""
        self._is_validating = True
        self._num_val_batches = self._agree(len(runner.val_dataloader), dist.ReduceOp.MIN)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Record that the trained weights are back in place."""
        self._is_validating = False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and exit, if any process got the signal."""
        if self._is_signalled():
            self._leave(runner, num_iters=runner.iter + 1)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and exit, if any process got the signal."""
        # Processes may have shares of different sizes; all of them ask equally often.
        if self._is_started and batch_idx < self._num_val_batches and self._is_signalled():
            self._leave(runner, num_iters=runner.iter)

    def after_run(self, runner: Runner) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, runner: Runner, pid: int, number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:
            # A process that was forked from the training, such as one of a pool of a metric.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self._signalled_at is not None:
            if time.monotonic() - self._signalled_at > _ECHO_S:
                os._exit(128 + number)
            return
        self._signalled_at = time.monotonic()
        if not self._is_started:
            raise SystemExit(PREEMPTED_STATUS)
        # Only here, where nothing else happens, may it leave in the middle of what is being done.
        stack = set()
        while frame is not None:
            stack.add(frame.f_code)
            frame = frame.f_back
        if self._group is None and stack & _WAITING and Runner.call_hook.__code__ not in stack:
            self._leave(runner, num_iters=runner.iter)

    def _is_signalled(self) -> bool:
        return bool(self._agree(int(self._signalled_at is not None)))

    def _agree(self, value: int, how: dist.ReduceOp = dist.ReduceOp.MAX) -> int:
        if self._group is None:
            return value
        common = torch.tensor(value)
        dist.all_reduce(common, how, group=self._group)
        return int(common)

    def _leave(self, runner: Runner, *, num_iters: int) -> None:
        saver = _savers(runner)[0]
        if self._is_validating:
            for average in runner.hooks:
                if isinstance(average, EMAHook):
                    average.after_val_epoch(runner)
        if saver.saved_at != num_iters:
            saver.save_now(runner, num_iters=num_iters)
        if self._group is not None:
            # torchrun ends all processes as soon as one has ended.
            dist.barrier(self._group)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        runner.logger.info(
            f'Stopped after iteration {num_iters}, which is saved: go on with --resume (exit '
            f'status {PREEMPTED_STATUS})'
        )
        raise SystemExit(PREEMPTED_STATUS)


def _savers(runner: Runner) -> list[SafeCheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
