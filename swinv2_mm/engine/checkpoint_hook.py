"""Save checkpoints atomically, with the full training state that an exact resume needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.distributed.tensor import DTensor

from swinv2_mm.atomic_write import atomic_write, discard
from swinv2_mm.core.unwrapping import unwrapped
from swinv2_mm.mmengine_private import accumulation, is_resuming, update_val_interval

from .epoch_loop import ResumableEpochLoop
from .sharding import cut
from .work_dir import POINTER

# What is saved between two regular checkpoints, and goes when the next of those is safe.
PREEMPTED = 'preempted.pth'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, which deletes a checkpoint only when the next one is complete.

    Takes the arguments of ``CheckpointHook``; MMEngine's own deletes first, so that with
    ``max_keep_ckpts=1`` an interrupted save leaves nothing. Three things are saved that MMEngine
    forgets: how far an epoch is, the gradients of an accumulation that is under way, and whether
    the validation that is due has been done; if not, the resumed run begins with it.
    """

    _gradients: list[dict[str, torch.Tensor]] | None = None
    _epoch, _epoch_start = 0, 0
    saved_at = -1  # iterations trained when it last saved

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._best_before: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        """Delete partial files of interrupted saves, and run a validation that was due."""
        _forget_elsewhere(runner, Path(self.out_dir or runner.work_dir))
        super().before_train(runner)
        if is_main_process():
            for part in Path(self.out_dir).glob('.*.part'):
                runner.logger.info(f'{part.name} is left of a save that was interrupted: removed')
                discard(part)
        if is_resuming(runner):
            self._remove(runner.message_hub.runtime_info.get('expired_ckpts', ()))
            if runner.iter > 0 and _is_validation_due(runner):
                runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Record the iteration at which the epoch begins."""
        self._epoch = runner.epoch
        self._epoch_start = runner.iter - getattr(runner.train_loop, 'first_batch', 0)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint."""
        # Part of what is saved. A name that begins with 'val' would be logged.
        runner.message_hub.update_info('scored_at', _trained(runner))
        super().after_val_epoch(runner, metrics)

    def save_now(self, runner: Runner, *, num_iters: int) -> None:
        """Save between two regular checkpoints, after ``num_iters`` iterations."""
        self._save(runner, PREEMPTED, meta={'epoch': runner.epoch, 'iter': num_iters})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the training state that MMEngine does not save."""
        if 'optimizer' not in checkpoint:
            return
        meta, loop = checkpoint['meta'], runner.train_loop
        if isinstance(loop, ResumableEpochLoop) and meta['epoch'] == self._epoch:
            meta['batch'] = (meta['iter'] - self._epoch_start, len(loop.dataloader))
        if self._gradients is not None:
            checkpoint['gradients'] = self._gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the training state that ``before_save_checkpoint`` added."""
        if not is_resuming(runner):
            return
        loop = runner.train_loop
        if isinstance(loop, ResumableEpochLoop):
            batch, num_batches = checkpoint['meta'].get('batch', (0, len(loop.dataloader)))
            if num_batches != len(loop.dataloader):
                runner.logger.warning(
                    f'An epoch had {num_batches} batches and has {len(loop.dataloader)} now: it '
                    'begins anew'
                )
                batch = 0
            loop.first_batch = batch
        if gradients := checkpoint.get('gradients'):
            _restore_gradients(runner, gradients)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        expired = [PREEMPTED, *self._replaced_best(runner)]
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                expired.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            # Part of what is saved: a resumed run goes on to count from here.
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._save(runner, self.filename_tmpl.format(step), meta=meta, expired=expired)

    def _save(self, runner: Runner, name: str, *, meta: dict, expired: Sequence[str] = ()) -> None:
        # Part of what is saved: a run that is killed before they are removed does it later.
        runner.message_hub.update_info('expired_ckpts', list(expired))
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._gradients = _gathered_gradients(runner) if self.save_optimizer else None
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._gradients = None
        self.saved_at = meta['iter']
        if is_main_process():
            # For other tools; our own runner looks for the newest file that can be read.
            atomic_write(Path(runner.work_dir, POINTER), self.last_ckpt)
        self._remove(expired)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        self._best_before = self._best(runner)
        # MMEngine deletes the best checkpoint that it knows before the new one is saved.
        self.best_ckpt_path, self.best_ckpt_path_dict = None, dict.fromkeys(self.key_indicators)
        super()._save_best_checkpoint(runner, metrics)
        self._remove(self._replaced_best(runner))
        self._best_before, known = {}, runner.message_hub.runtime_info
        self.best_ckpt_path = known.get('best_ckpt')
        self.best_ckpt_path_dict = {k: known.get(f'best_ckpt_{k}') for k in self.key_indicators}

    def _best(self, runner: Runner) -> dict[str, str]:
        known = runner.message_hub.runtime_info
        return {key: Path(known[key]).name for key in known if key.startswith('best_ckpt')}

    def _replaced_best(self, runner: Runner) -> list[str]:
        now = self._best(runner)
        return [name for key, name in self._best_before.items() if now[key] != name]

    def _remove(self, names: Iterable[str]) -> None:
        for name in names if is_main_process() else ():
            # What a resumed checkpoint calls expired may be the name of anything.
            if name != Path(str(name)).name or not name.endswith('.pth'):
                continue
            path = self.file_backend.join_path(self.out_dir, name)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # of a sharded checkpoint
                self.file_backend.rmtree(path)


def _forget_elsewhere(runner: Runner, folder: Path) -> None:
    """Forget checkpoints in other folders before a resumed run goes on.

    The best one so far is deleted when there is a better one, and its path comes from the
    checkpoint that is resumed: it may be from another work dir, or name any file or folder.
    """
    runtime, folder = runner.message_hub.runtime_info, folder.resolve()
    for key in [key for key in runtime if key.startswith('best_ckpt')]:
        if folder not in Path(str(runtime[key])).resolve().parents:
            runner.message_hub.pop_info(key)
    steps = runtime.get('keep_ckpt_ids', [])
    if not isinstance(steps, list) or not all(type(step) is int for step in steps):
        runner.message_hub.pop_info('keep_ckpt_ids')


def _trained(runner: Runner) -> int:
    """Return the progress of a training in the unit of its validations: epochs or iterations."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def _is_validation_due(runner: Runner) -> bool:
    """Whether a run was interrupted after the checkpoint and before the end of a validation."""
    loop, trained = runner.train_loop, _trained(runner)
    update_val_interval(loop)
    last = runner.max_epochs if isinstance(loop, EpochBasedTrainLoop) else runner.max_iters
    return (
        runner.val_loop is not None
        and not getattr(loop, 'first_batch', 0)
        and trained >= loop.val_begin
        and (trained % loop.val_interval == 0 or trained == last)
        and runner.message_hub.runtime_info.get('scored_at') != trained
    )


def _gathered_gradients(runner: Runner) -> list[dict[str, torch.Tensor]] | None:
    """Collect what each process has accumulated since the last update, if anything."""
    wrapper = runner.optim_wrapper
    if accumulation(wrapper) == 1 or wrapper.should_update():
        return None
    parameters = unwrapped(runner.model).named_parameters()
    own = {name: p.grad for name, p in parameters if p.grad is not None}
    if any(isinstance(gradient, DTensor) for gradient in own.values()):
        # Shards, which have been exchanged: they are put together as the weights are.
        return [own]
    own = {name: gradient.cpu() for name, gradient in own.items()}
    # As long as processes accumulate, their gradients differ.
    return gather_object(own) if get_world_size() > 1 else [own]


def _restore_gradients(runner: Runner, gradients: list[dict[str, torch.Tensor]]) -> None:
    if len(gradients) == get_world_size():
        own = gradients[get_rank()]
    else:
        # The next update uses their mean, whichever process holds which.
        own = {name: sum(g[name] for g in gradients) / len(gradients) for name in gradients[0]}
    for name, parameter in unwrapped(runner.model).named_parameters():
        if name in own:
            value = own[name].to(parameter.device)
            is_whole = isinstance(parameter, DTensor) and not isinstance(value, DTensor)
            parameter.grad = cut(value, like=parameter) if is_whole else value
