"""Load, resume and save the checkpoints of MMEngine's Runner: safely, strictly, atomically."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import Runner
from torch import nn

from swinv2_mm.checkpoint.load_report import shortened
from swinv2_mm.checkpoint.loading import find_backbones
from swinv2_mm.checkpoint.reading import pointed_at
from swinv2_mm.checkpoint.sharded import is_sharded
from swinv2_mm.config.entries import read_entry
from swinv2_mm.core.unwrapping import unwrapped
from swinv2_mm.errors import UserError
from swinv2_mm.mmengine_private import is_training

from .filling import fill_model
from .resumed_settings import ResumedSettings
from .saving import training_checkpoint, write_checkpoint
from .seeding import reseed_sampler
from .sharded_training import ZeroOptimizer, read_shards, sharding_of
from .training_state import check_resumable, newest_readable, open_checkpoint


class CheckpointRunner(Runner):
    """MMEngine's Runner for weights of any layout and for sharded training state.

    MMEngine falls back to running the code in a pickle, executes the config text of a
    checkpoint that is resumed, and goes on when weights do not fit. This one refuses.

    ``load_from`` may also be weights of any layout that ``swinv2_mm.checkpoint`` reads, or the
    name of a released model; ``fresh_parameters`` and ``head_class_map`` of the config say what
    it need not fit (``fill_model``).

    Checkpoints of all kinds of ``parallel`` are alike: each resumes those of another, on any
    number of processes.
    """

    resumed: ResumedSettings | None = None

    @cached_property
    def sharding(self) -> ZeroOptimizer | None:
        """What shards the state of this training; ``None`` for DDP and for a single process."""
        return sharding_of(self.cfg) if self.distributed else None

    @property
    def bare_model(self) -> nn.Module:
        """The model without MMEngine's wrapper."""
        return unwrapped(self.model)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict:
        """Load weights into the model, strictly.

        Returns:
            The checkpoint, without its config text.

        Raises:
            UserError: If the file is missing, broken, holds code, or does not fit the model.
        """
        filename = str(pointed_at(Path(filename))) if '://' not in filename else filename
        opened = open_checkpoint(filename, map_location=map_location)
        is_resumed = self._resume and is_training(self)
        checkpoint, model = opened.content, self.bare_model
        optimizer = None
        if is_resumed:
            check_resumable(checkpoint, filename=filename)
            optimizer = self.optim_wrapper.optimizer
            self.resumed = ResumedSettings(self, checkpoint)
        if is_sharded(Path(filename)):
            read_shards(checkpoint, folder=Path(filename), model=model, optimizer=optimizer)
        elif is_resumed and self.sharding:
            self.sharding.cut_optimizer_state(checkpoint['optimizer'], optimizer)
        report = fill_model(
            model,
            opened,
            is_start=is_training(self) and not self._resume,
            is_resumed=is_resumed,
            fresh=read_entry(self.cfg, 'fresh_parameters'),
            class_map=read_entry(self.cfg, 'head_class_map'),
            revise_keys=revise_keys,
            prepare=lambda content: self.call_hook('after_load_checkpoint', checkpoint=content),
        )
        if report.layout != 'own':
            # The average was copied from the model before, and MMEngine fills it from own names.
            for hook in self.hooks:
                if isinstance(hook, EMAHook):
                    hook.ema_model.module.load_state_dict(model.state_dict())
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}: {report}')
        if report.missing:
            names = shortened(list(report.missing))
            self.logger.info(f'{len(report.missing)} tensors keep their initial values: {names}')
        return checkpoint

    def load_or_resume(self) -> None:
        """Load or resume as the config says; ``resume`` alone takes the newest readable file."""
        if self._resume and self._load_from is None and not self._has_loaded:
            # Processes that each look for themselves could find different ones.
            found = [self._newest_readable() if is_main_process() else None]
            broadcast_object_list(found)
            if found[0] is None:
                self.logger.info(f'No readable checkpoint in {self.work_dir}: training starts anew')
                self._resume, self._load_from = False, read_entry(self.cfg, 'start_from')
            else:
                self._load_from = found[0]
        with self.whole_values():
            super().load_or_resume()
        if is_training(self):
            for backbone in find_backbones(self.model):
                is_compiled = bool(self.cfg.get('compile'))
                self.logger.info(backbone.describe_attention(is_compiled=is_compiled))

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume as MMEngine does, and report what holds: the checkpoint's setting or the config's.

        The seed of the checkpoint goes to the sampler too; what ``resume_with`` names comes from
        the config.

        Raises:
            UserError: If the state does not fit the optimizer, or a schedule cannot be replayed.
        """
        seed = self.seed
        try:
            super().resume(filename, *args, **kwargs)
        except ValueError as error:
            if 'parameter group' not in str(error):
                raise
            raise UserError(
                f'{filename}: {error}; resume with the optim_wrapper and the frozen parameters '
                'that it was trained with, or start from its weights with load_from'
            ) from error
        if self.seed != seed:
            reseed_sampler(self.train_dataloader, old=seed, new=self.seed)
        if self.resumed is not None:
            self.resumed.finish(self)

    def whole_values(self) -> Any:
        """Return a context in which whole tensors can be copied to the model, sharded or not."""
        return self.sharding.whole_values() if self.sharding else nullcontext()

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save in MMEngine's format, atomically; all processes call it.

        Raises:
            UserError: If it cannot be written; what was there before is untouched.
        """
        if self.sharding is None and not is_main_process():
            return
        checkpoint = training_checkpoint(
            self,
            meta=meta,
            by_epoch=by_epoch,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
        )
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        write_checkpoint(
            checkpoint, out_dir, name=filename, sharding=self.sharding, backend_args=backend_args
        )

    def _newest_readable(self) -> str | None:
        folders = {self.work_dir}
        for hook in self.hooks:
            if getattr(hook, 'out_dir', None) is not None and isinstance(hook, CheckpointHook):
                folders.add(str(Path(hook.out_dir, Path(self.work_dir).name)))
        path = newest_readable(folders, logger=self.logger)
        return None if path is None else str(path)
