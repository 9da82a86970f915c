"""A Runner that reads weights safely and says so when they do not fit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop

from swinv2_mm.checkpoint import CheckpointError, load_pretrained
from swinv2_mm.checkpoint.layouts import WINDOWS_BUFFER
from swinv2_mm.checkpoint.loading import find_backbone
from swinv2_mm.checkpoint.reading import local_path, read_file
from swinv2_mm.checkpoint.report import shortened
from swinv2_mm.checkpoint.saving import publish
from swinv2_mm.checkpoint.sharded import REST, is_sharded
from swinv2_mm.errors import UserError

from .checkpoint_hook import newest_first
from .console import environment_summary, tidy
from .parallel_runner import ParallelRunner


def _statistic(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` while reading: a history refers to its statistics by it."""
    if owner is not HistoryBuffer or name not in ('current', 'max', 'mean', 'min'):
        raise UserError(f'it asks for {name} of {owner}')
    return getattr(owner, name)


# What a training checkpoint holds beside tensors and numbers: the logged history.
_SAFE_TYPES = [
    HistoryBuffer,
    (_statistic, 'builtins.getattr'),
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,
    np._core.multiarray.scalar,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.uint32, np.bool_)),
]


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
        folder = Path(filename)
        path = folder / REST if is_sharded(folder) else local_path(filename)
        checkpoint, _ = read_file(path, safe_globals=_SAFE_TYPES, map_location=map_location)
        if not isinstance(checkpoint, dict):
            raise UserError(f'checkpoint {filename} holds no weights')
        if isinstance(meta := checkpoint.get('meta'), dict):
            meta.pop('config', None)
        self.complete(checkpoint, folder=folder if is_sharded(folder) else None)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        state_dict = checkpoint.get('state_dict', checkpoint)
        for pattern, replacement in revise_keys:
            state_dict = {re.sub(pattern, replacement, k): v for k, v in state_dict.items()}
        # What is tested or resumed has been trained: nothing of it is fresh, or mapped.
        is_start = self._is_training() and not self._resume
        class_map = self.cfg.get('head_class_map') if is_start else None
        if class_map is not None or (not self._resume and _is_foreign(state_dict, model)):
            self._load_foreign(model, filename, class_map=class_map)
        else:
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
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
            for path in newest_first(self.work_dir):
                self._load_from = str(path)
                try:
                    super().load_or_resume()
                except CheckpointError as error:
                    # Raised while the file is read, before anything changes.
                    self.logger.warning(f'Not resumed from {path.name}: {error}')
                else:
                    return
            self.logger.info(f'No readable checkpoint in {self.work_dir}: training starts anew')
            self._resume, self._load_from = False, self.cfg.get('start_from')
        super().load_or_resume()

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
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)

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
