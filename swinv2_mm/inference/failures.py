"""Judge whether an image, or the model itself, is to blame for a failed prediction."""

from __future__ import annotations

import numpy as np

from swinv2_mm.engine.failures import is_out_of_memory
from swinv2_mm.errors import UserError, one_line

from .preparation import LoadedInput

# Failures in a row from which on the images are not to blame.
_MOST_FAILURES = 10


class FailureJudge:
    """Explain failures of single images, and raise the error if image after image fails."""

    def __init__(self) -> None:
        self._num_in_a_row = 0

    def note_success(self) -> None:
        """Count from zero again: the model works."""
        self._num_in_a_row = 0

    def reason(self, loaded: LoadedInput, error: Exception, *, is_patient: bool) -> str:
        """Return why an image cannot be predicted.

        Args:
            loaded: The image.
            error: What the model raised.
            is_patient: Whether other images are to be tried; too large an image is always excused.

        Raises:
            Exception: The error, unless ``is_patient``, or if one image after another has it.
        """
        height, width = loaded.image.shape[:2]
        name = 'the image' if isinstance(loaded.source, np.ndarray) else loaded.source
        if is_out_of_memory(error):
            return f'{name}: {width} x {height} pixels are too many for the memory: take tiles'
        if not is_patient or self._num_in_a_row == _MOST_FAILURES:
            raise error
        self._num_in_a_row += 1
        if isinstance(error, UserError):
            return f'{name}: {error}'
        reason = one_line(f'{type(error).__name__}: {error}')
        return f'{name}: {width} x {height} pixels make the model fail: {reason}'
