"""Detect losses and gradients that are NaN or infinite, report their origin, stop or skip."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.dist import all_reduce, gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.core.torch_private import norms_of_tensors
from swinv2_mm.core.unwrapping import unwrapped
from swinv2_mm.errors import UserError
from swinv2_mm.mmengine_private import accumulation, loss_terms

from .seeding import seed_everything

# Key of the message hub: whether an iteration since the last update was not finite.
_SINCE_UPDATE = 'non_finite_since_update'
_IMAGE_KEYS = ('img_id', 'img_path', 'sample_idx')


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop or skip an update whose loss or gradients are not finite, and report the origin.

    Loss and gradients are checked before the optimizer's step; under a loss scaler the loss alone,
    as the scaler skips overflowing gradients by itself and lowers its scale. The report,
    ``WORK_DIR/non_finite/iter_N.json``, has the images of every process, the terms of the loss,
    the norm of each module's output in a second forward pass with the same random numbers (by
    forward hooks), the norm of each gradient, the config and the seed.

    Args:
        action: ``stop`` ends the training; ``skip`` leaves out the update, with all iterations
            that it accumulates, and puts back the buffers, such as running means.
        max_skips: Skipped iterations, resumed runs included, after which the training stops.
    """

    # Runs before any hook that uses the result of the iteration.
    priority = 'VERY_HIGH'

    def __init__(self, action: Literal['stop', 'skip'] = 'stop', max_skips: int = 10) -> None:
        if action not in ('stop', 'skip'):
            raise UserError(f"NonFiniteHook: action is 'stop' or 'skip', not {action!r}")
        self.action, self.max_skips = action, max_skips
        self._batch: tuple[int, Any] = (0, None)
        self._loss = torch.tensor(0.0)
        self._before: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Wrap the optimizer's update by the check."""
        self._runner, wrapper = runner, runner.optim_wrapper
        self._backward, self._step = wrapper.backward, wrapper.step
        # Schedulers of torch have marked the function, and look for the mark.
        wrapper.step = update_wrapper(partial(self._guarded_step), self._step)
        wrapper.backward = self._guarded_backward
        model = unwrapped(runner.model)
        saved = model.state_dict().keys()
        self._buffers = {name: b for name, b in model.named_buffers() if name in saved}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Record the batch, and the buffers that a skipped update must restore."""
        self._batch = (runner.iter, data_batch)
        if self.action == 'skip':
            self._before = {name: buffer.clone() for name, buffer in self._buffers.items()}

    def _guarded_backward(self, loss: Tensor, **kwargs: Any) -> None:
        self._loss = loss.detach()
        self._backward(loss, **kwargs)
        wrapper = self._runner.optim_wrapper
        # The iteration of an update is checked in ``_guarded_step``, loss and gradients together.
        if accumulation(wrapper) > 1 and not wrapper.should_update():
            if self._is_bad([]):
                self._handle()
                self._runner.message_hub.update_info(_SINCE_UPDATE, True)

    def _guarded_step(self, **kwargs: Any) -> None:
        hub = self._runner.message_hub
        is_skipped = hub.runtime_info.get(_SINCE_UPDATE, False)
        is_checked = not is_skipped and not hasattr(self._runner.optim_wrapper, 'loss_scaler')
        if self._is_bad(list(self._gradients().values()) if is_checked else []):
            self._handle()
        elif not is_skipped:
            self._step(**kwargs)
        hub.update_info(_SINCE_UPDATE, False)

    def _is_bad(self, gradients: list[Tensor]) -> bool:
        """Whether the loss or a gradient of any process is not finite: all do the same."""
        parts = [self._loss, *(norms_of_tensors(gradients) if gradients else ())]
        # Reduced to one number, so that a GPU is waited for once.
        is_bad = (~torch.stack(parts).isfinite()).any().int()
        all_reduce(is_bad, 'max')
        return bool(is_bad)

    def _handle(self) -> None:
        runner, hub = self._runner, self._runner.message_hub
        skips = hub.runtime_info.get('non_finite_skips', 0) + 1
        where = f'iteration {self._batch[0] + 1}'
        path = self._report()
        if self.action == 'stop' or skips > self.max_skips:
            spent = f', after {self.max_skips} that were left out' if self.action == 'skip' else ''
            raise UserError(
                f'the loss or gradient of {where} is not finite{spent}: {path} lists the images '
                'and layers; the last checkpoint is intact'
            )
        hub.update_info('non_finite_skips', skips)
        for name, value in self._before.items():
            self._buffers[name].copy_(value)
        runner.logger.warning(
            f'The loss or gradient of {where} is not finite: update left out ({skips} of at most '
            f'{self.max_skips}); see {path}'
        )

    def _report(self) -> Path:
        runner = self._runner
        own = {'rank': get_rank(), **self._diagnosis(*self._batch, self._loss)}
        content = {
            'iteration': self._batch[0] + 1,
            'seed': runner.seed,
            'ranks': gather_object(own) if get_world_size() > 1 else [own],
            'gradient_norms': {n: _number(_norm([g])) for n, g in self._gradients().items()},
            'config': runner.cfg.pretty_text,
        }
        path = Path(runner.work_dir, 'non_finite', f'iter_{self._batch[0] + 1}.json')
        if is_main_process():
            text = json.dumps(content, indent=1, allow_nan=False, default=str)
            atomic_write(path, text)
        return path

    def _diagnosis(self, iteration: int, data: Any, loss: Tensor) -> dict:
        """Repeat the forward pass of an iteration with a forward hook on every module."""
        runner, model = self._runner, unwrapped(self._runner.model)
        norms: dict[str, float | str] = {}
        handles = [
            module.register_forward_hook(_listener(norms, name or '(model)'))
            for name, module in model.named_modules()
        ]
        seed_everything(runner.seed, runner.rank, iteration)
        try:
            with torch.no_grad(), runner.optim_wrapper.optim_context(model):
                terms = loss_terms(model, data)
        finally:
            for handle in handles:
                handle.remove()
        return {
            'loss': _number(loss),
            'loss_terms': {name: _term(value) for name, value in terms.items()},
            'images': _images(data),
            'first_non_finite_module': next((n for n in norms if isinstance(norms[n], str)), None),
            'activation_norms': norms,
        }

    def _gradients(self) -> dict[str, Tensor]:
        parameters = unwrapped(self._runner.model).named_parameters()
        # Of a sharded gradient, this process measures its own part.
        return {
            name: p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad
            for name, p in parameters
            if p.grad is not None
        }


def _listener(norms: dict[str, float | str], name: str) -> Callable:
    def listen(module: nn.Module, inputs: tuple, output: Any) -> None:
        values = output.values() if isinstance(output, dict) else output
        tensors = [values] if isinstance(values, Tensor) else values
        tensors = [t for t in tensors or () if isinstance(t, Tensor) and t.is_floating_point()]
        # Of several calls of a module the last one counts, or the first that went wrong.
        if tensors and not isinstance(norms.get(name), str):
            norms[name] = _number(_norm(tensors))

    return listen


def _norm(tensors: list[Tensor]) -> Tensor:
    """Return the norm of all values, in a precision in which it cannot overflow by itself."""
    norms = [torch.linalg.vector_norm(t.detach(), dtype=torch.float64) for t in tensors]
    return torch.linalg.vector_norm(torch.stack(norms))


def _number(value: Tensor | float) -> float | str:
    """Return a number that JSON knows, or the name of one that it does not."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _term(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_term(part) for part in value]
    return _number(value.double().mean()) if isinstance(value, Tensor) else str(value)


def _images(data: Any) -> list[dict[str, Any]]:
    samples = data.get('data_samples') if isinstance(data, dict) else None
    return [
        {key: s.get(key) for key in _IMAGE_KEYS if key in s}
        for s in samples or ()
        if isinstance(s, BaseDataElement)
    ]
