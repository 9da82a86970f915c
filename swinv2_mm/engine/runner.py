"""A Runner that reads weights safely and says so when they do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from swinv2_mm.atomic_write import discard, publish
from swinv2_mm.checkpoint import load_pretrained
from swinv2_mm.checkpoint.layouts import WINDOWS_BUFFER
from swinv2_mm.checkpoint.loading import find_backbone, find_backbones
from swinv2_mm.checkpoint.report import shortened
from swinv2_mm.errors import UserError
from swinv2_mm.mmengine_private import is_training

from .console import environment_summary, tidy
from .parallel_runner import ParallelRunner
from .seeding import seed_samples
from .training_state import check_resumable, newest_readable, read_checkpoint
from .workers import shield_workers, without_idle_settings


@RUNNERS.register_module()
class CheckedRunner(ParallelRunner):
    """MMEngine's Runner for weights from anywhere.

    MMEngine falls back to running the code in a pickle, executes the config text of a
    checkpoint that is resumed, and goes on when weights do not fit. This one refuses.

    ``load_from`` may also be weights of any layout that ``swinv2_mm.checkpoint`` reads, or the
    name of a released model. Two entries of the config say what it need not fit:

    - ``fresh_parameters``: beginnings of names, such as ``roi_head.mask_head``, that keep their
      initial values; ``*`` stands for one part of a name.
    - ``head_class_map``: which class of the weights' classification head each class is; see
      ``load_pretrained``.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build MMEngine's logger, with a console that leaves known noise to the log file."""
        logger = super().build_logger(*args, **kwargs)
        tidy(logger)
        return logger

    def _log_env(self, env_cfg: dict) -> None:
        super()._log_env(env_cfg)
        self.logger.info(environment_summary(seed=self.seed, log_file=self.logger.log_file))

    def dump_config(self) -> None:
        """Save nothing: this config has been changed for the run; see ``save_config``."""

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict:
        """Load weights into the model.

        Returns:
            The checkpoint, without its config text.

        Raises:
            UserError: If the file is missing, broken, holds code, or does not fit the model.
        """
        checkpoint = read_checkpoint(filename, map_location=map_location)
        if self._resume and self._is_training():
            check_resumable(checkpoint, filename=filename)
        self.complete(checkpoint, filename=filename)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        state_dict = _revised(checkpoint, revise_keys)
        # What is tested or resumed has been trained: nothing of it is fresh, or mapped.
        is_start = self._is_training() and not self._resume
        class_map = self.cfg.get('head_class_map') if is_start else None
        if class_map is not None or (not self._resume and _is_foreign(state_dict, model)):
            self._load_foreign(model, filename, class_map=class_map)
        else:
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
            # Again: EMAHook puts back the weights that are trained, in place of their average.
            state_dict = _revised(checkpoint, revise_keys)
            fresh = self._fresh_names(model) if is_start else set()
            state_dict = {k: v for k, v in state_dict.items() if k not in fresh}
            state_dict |= {k: v for k, v in model.state_dict().items() if k in fresh}
            if strict:
                _check_fit(model, state_dict, filename)
            model.load_state_dict(state_dict, strict=strict)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def load_or_resume(self) -> None:
        """Load or resume as the config says; ``resume`` alone takes the newest readable file."""
        if self._resume and self._load_from is None and not self._has_loaded:
            # Processes that each look for themselves could find different ones.
            found = [self._newest_readable() if is_main_process() else None]
            broadcast_object_list(found)
            if found[0] is None:
                self.logger.info(f'No readable checkpoint in {self.work_dir}: training starts anew')
                self._resume, self._load_from = False, self.cfg.get('start_from')
            else:
                self._load_from = found[0]
        super().load_or_resume()
        if is_training(self):
            for backbone in find_backbones(self.model):
                is_compiled = bool(self.cfg.get('compile'))
                self.logger.info(backbone.describe_attention(is_compiled=is_compiled))

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """Resume as MMEngine does, and give the seed of the checkpoint to the sampler too."""
        seed = self.seed
        super().resume(*args, **kwargs)
        if self.seed != seed:
            loader = self.train_dataloader
            samplers = (loader.sampler, getattr(loader.batch_sampler, 'sampler', None))
            for sampler in samplers:
                if getattr(sampler, 'seed', None) == seed:
                    sampler.seed = self.seed

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> DataLoader:
        """Build MMEngine's loader, with samples that are drawn alike in whatever process."""
        if isinstance(dataloader, dict):
            dataloader = without_idle_settings(dataloader)
        loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        seed_samples(loader)
        shield_workers(loader)
        return loader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build a loop that can be taken up in the middle of an epoch."""
        if isinstance(loop, dict) and loop.get('type') == 'EpochBasedTrainLoop':
            loop = {**loop, 'type': 'ResumableEpochLoop'}
        return super().build_train_loop(loop)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save as MMEngine does, but under another name until the file is complete.

        Raises:
            UserError: If it cannot be written; what was there before is untouched.
        """
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        path = Path(out_dir, filename)
        part = path.with_name(f'.{path.name}.part')
        try:
            super().save_checkpoint(out_dir, part.name, *args, **kwargs)
            if is_main_process():
                publish(part, path)
        except OSError as error:
            raise UserError(
                f'checkpoint {path} cannot be written: {error.strerror or error}; earlier ones '
                'are untouched, go on with --resume'
            ) from error
        finally:
            if is_main_process():
                discard(part)

    def _load_foreign(
        self, model: torch.nn.Module, filename: str, *, class_map: str | None
    ) -> None:
        report = load_pretrained(model, filename, class_map=class_map)
        self.logger.info(str(report))
        backbone = find_backbone(model)
        place = next(name for name, module in model.named_modules() if module is backbone)
        loaded = {*report.loaded, *(f'{place}.{name}' for name in report.loaded)}
        idle = [name for name, _ in model.named_parameters() if name not in loaded]
        if not idle:
            return
        if not self._is_training():
            raise UserError(
                f'{filename} has no weights for {shortened(idle)}: only a trained model of this '
                'config can be tested'
            )
        self.logger.info(f'{len(idle)} parameters keep their initial values: {shortened(idle)}')

    def _newest_readable(self) -> str | None:
        folders = {self.work_dir}
        for hook in self.hooks:
            if getattr(hook, 'out_dir', None) is not None and isinstance(hook, CheckpointHook):
                folders.add(str(Path(hook.out_dir, Path(self.work_dir).name)))
        path = newest_readable(folders, logger=self.logger)
        return None if path is None else str(path)

    def _is_training(self) -> bool:
        # A training's loop is built before its weights are loaded.
        return isinstance(self._train_loop, BaseLoop)

    def _fresh_names(self, model: torch.nn.Module) -> set[str]:
        """Return the names in a model that ``fresh_parameters`` means."""
        names, fresh = set(model.state_dict()), set()
        for start in self.cfg.get('fresh_parameters') or ():
            pattern = re.escape(start).replace(r'\*', r'[^.]+') + r'(\..+)?'
            found = {name for name in names if re.fullmatch(pattern, name)}
            if not found:
                raise UserError(f"fresh_parameters: the model has nothing called '{start}'")
            fresh |= found
        if fresh:
            self.logger.info(
                f'{len(fresh)} tensors keep their initial values (fresh_parameters): '
                f'{shortened(sorted(fresh))}'
            )
        return fresh


def _revised(checkpoint: dict, revise_keys: Sequence[tuple[str, str]]) -> dict:
    """Return the weights in a checkpoint, with their names replaced as MMEngine does."""
    state_dict = checkpoint.get('state_dict', checkpoint)
    for pattern, replacement in revise_keys:
        state_dict = {re.sub(pattern, replacement, k): v for k, v in state_dict.items()}
    return state_dict


def _is_foreign(state_dict: dict, model: torch.nn.Module) -> bool:
    """Whether weights are not those of a whole model of this project."""
    buffers = [name for name in model.state_dict() if name.endswith(WINDOWS_BUFFER)]
    return bool(buffers) and not any(name in state_dict for name in buffers)


def _check_fit(model: torch.nn.Module, state_dict: dict, filename: str) -> None:
    """Raise a ``UserError`` unless names and shapes are those of the model."""
    own = model.state_dict()
    problems = []
    for what, keys in (('lacks', own.keys() - state_dict), ('adds', state_dict.keys() - own)):
        if keys:
            problems.append(f'it {what} {len(keys)} tensors ({shortened(sorted(keys))})')
    shapes = [k for k in own if k in state_dict and own[k].shape != state_dict[k].shape]
    if shapes:
        first = shapes[0]
        problems.append(
            f'{len(shapes)} tensors differ in shape (the first, {first}, is '
            f'{tuple(state_dict[first].shape)}, the model needs {tuple(own[first].shape)})'
        )
    if problems:
        raise UserError(
            f'checkpoint {filename} does not fit the model of this config: {"; ".join(problems)}. '
            'To train on with parts of it, name the others in fresh_parameters'
        )
