"""Make batches of images of one size, and hand the predictions out in the order of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .prediction import Prediction
from .preparation import LoadedInput

# Batches of images among which those of one size are looked for.
_LOOK_AHEAD = 4


@dataclass
class _Waiting:
    """An image whose turn to be handed out has not come: ``loaded``, or predicted already."""

    loaded: LoadedInput | None
    prediction: Prediction | None = None


def in_batches(
    inputs: Iterator[LoadedInput],
    predict: Callable[[list[LoadedInput]], Sequence[Prediction | None]],
    *,
    batch_size: int,
) -> Iterator[Prediction]:
    """Predict for images in batches of one size, found among the next ``4 * batch_size`` images.

    Args:
        inputs: Images, read as they are needed.
        predict: Returns a prediction for each image of a batch, ``None`` where it failed.
        batch_size: Most images of a batch.

    Yields:
        Predictions in the order of the images, without those that failed.
    """
    waiting: list[_Waiting] = []
    is_over = False
    while not is_over or waiting:
        # The first in line is always one that has not been predicted.
        batch = _first_of_a_size(waiting)
        if not is_over and len(batch) < batch_size and len(waiting) < _LOOK_AHEAD * batch_size:
            loaded = next(inputs, None)
            is_over = loaded is None
            waiting += [] if is_over else [_Waiting(loaded)]
            continue
        _fill(batch[:batch_size], predict)
        batch.clear()
        while waiting and waiting[0].loaded is None:
            if (found := waiting.pop(0).prediction) is not None:
                yield found


def _fill(
    batch: list[_Waiting], predict: Callable[[list[LoadedInput]], Sequence[Prediction | None]]
) -> None:
    # In a function, because local variables here would keep images in memory for too long.
    predictions = predict([entry.loaded for entry in batch if entry.loaded is not None])
    for entry, prediction in zip(batch, predictions, strict=True):
        entry.loaded, entry.prediction = None, prediction


def _first_of_a_size(waiting: list[_Waiting]) -> list[_Waiting]:
    """Return the first image in line, and all others to be predicted that have its size."""
    inputs = [(entry, entry.loaded.shape) for entry in waiting if entry.loaded is not None]
    return [entry for entry, shape in inputs if shape == inputs[0][1]]
