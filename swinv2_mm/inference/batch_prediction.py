"""Predict for a batch in one step of the model, or image by image where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from swinv2_mm.engine.failures import is_out_of_memory
from swinv2_mm.errors import DataError

from .class_names import Classes
from .failures import FailureJudge
from .prediction import Prediction
from .preparation import LoadedInput


class BatchPredictor:
    """Run ``test_step`` on batches, and find the image that is to blame for a failure.

    Args:
        model: A model with ``test_step``.
        scope: MMEngine's default scope of its library.
        task: The task of the model.
        classes: Its classes.
    """

    def __init__(self, model: Any, *, scope: str, task: str, classes: Classes) -> None:
        self._model = model
        self._scope = scope
        self._task = task
        self._classes = classes
        self._failures = FailureJudge()

    def __call__(
        self,
        batch: list[LoadedInput],
        on_error: Callable[[Any, str], None] | None,
        *,
        is_patient: bool,
        keeps_logits: bool = False,
    ) -> list[Prediction | None]:
        """Return the prediction for each image of a batch, ``None`` where it failed.

        Args:
            batch: Inputs of one shape.
            on_error: Called with an image that is too large for the memory, and the reason.
                Without it the first one raises.
            is_patient: Whether it is called too if the model fails on an image alone.
            keeps_logits: Whether samples of a segmentor keep ``seg_logits``.

        Raises:
            DataError: See ``on_error``.
        """
        try:
            samples = self._test_step(batch, keeps_logits=keeps_logits)
        except Exception as error:
            # The traceback holds the tensors of the step.
            failure = error.with_traceback(None) if is_out_of_memory(error) else error
        else:
            self._failures.note_success()
            return [
                Prediction(loaded.source, loaded.image, sample, self._task, self._classes)
                for loaded, sample in zip(batch, samples, strict=True)
            ]
        if len(batch) > 1:
            settings = {'is_patient': is_patient, 'keeps_logits': keeps_logits}
            singly = [self([one], on_error, **settings) for one in batch]
            return [prediction for (prediction,) in singly]
        message = self._failures.reason(batch[0], failure, is_patient=is_patient)
        if on_error is None:
            raise DataError(message) from failure
        on_error(batch[0].source, message)
        return [None]

    @torch.inference_mode()
    def _test_step(self, batch: list[LoadedInput], *, keeps_logits: bool) -> list:
        # The caller's own scope is back before anything is yielded.
        with DefaultScope.overwrite_default_scope(self._scope):
            samples = self._model.test_step(pseudo_collate([b.data for b in batch]))
        if not keeps_logits:
            for sample in samples:
                # One float per class and pixel: far larger than all else, only tiles need it.
                sample.pop('seg_logits', None)
        return [sample.cpu() for sample in samples]
