"""A Runner that reads weights safely and says so when they do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from swinv2_mm.checkpoint.reading import local_path, read_file
from swinv2_mm.errors import UserError


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
_LISTED_KEYS = 3


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """MMEngine's Runner for weights from anywhere.

    MMEngine falls back to running the code in a pickle, executes the config text of a
    checkpoint that is resumed, and goes on when weights do not fit. This one refuses.
    """

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict:
        """Load all weights of the model from a checkpoint of this project.

        Returns:
            The checkpoint, without its config text.

        Raises:
            UserError: If the file is missing, broken, holds code, or does not fit the model.
        """
        checkpoint, _ = read_file(
            local_path(filename), safe_globals=_SAFE_TYPES, map_location=map_location
        )
        if not isinstance(checkpoint, dict):
            raise UserError(f'checkpoint {filename} holds no weights')
        checkpoint.get('meta', {}).pop('config', None)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        state_dict = checkpoint.get('state_dict', checkpoint)
        for pattern, replacement in revise_keys:
            state_dict = {re.sub(pattern, replacement, k): v for k, v in state_dict.items()}
        model = self.model.module if is_model_wrapper(self.model) else self.model
        if strict:
            _check_fit(model, state_dict, filename)
        model.load_state_dict(state_dict, strict=strict)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint


def _check_fit(model: torch.nn.Module, state_dict: dict, filename: str) -> None:
    """Raise a ``UserError`` unless names and shapes are those of the model."""
    own = model.state_dict()
    problems = []
    for what, keys in (('lacks', own.keys() - state_dict), ('adds', state_dict.keys() - own)):
        if keys:
            named = ', '.join(sorted(keys)[:_LISTED_KEYS])
            more = ', ...' if len(keys) > _LISTED_KEYS else ''
            problems.append(f'it {what} {len(keys)} tensors ({named}{more})')
    shapes = [k for k in own if k in state_dict and own[k].shape != state_dict[k].shape]
    if shapes:
        first = shapes[0]
        problems.append(
            f'{len(shapes)} tensors differ in shape (the first, {first}, is '
            f'{tuple(state_dict[first].shape)}, the model needs {tuple(own[first].shape)})'
        )
    if problems:
        raise UserError(
            f'checkpoint {filename} does not fit the model of this config: {"; ".join(problems)}'
        )
