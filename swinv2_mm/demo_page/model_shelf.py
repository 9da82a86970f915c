"""List the models that a page offers, and load each when it is selected."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinv2_mm.checkpoint.loading import find_backbones
from swinv2_mm.config.file import load_config
from swinv2_mm.core.window_partition import Size
from swinv2_mm.engine.work_dir import checkpoint_in, config_in, work_dirs_below
from swinv2_mm.errors import UserError
from swinv2_mm.inference import Prediction, SwinV2Inferencer
from swinv2_mm.libraries import library_of

from .attention_view import attention_picture

_MOST_LOADED = 2
# Larger windows would cover every image that a page accepts.
MAX_WINDOW = 64


@dataclass(frozen=True)
class ModelChoice:
    """One entry of the list.

    Attributes:
        name: What the page calls it.
        task: ``detection``, ``segmentation`` or ``classification``.
        config: Config file.
        weights: Checkpoint.
    """

    name: str
    task: str
    config: str
    weights: str


def describe_model(config: str, weights: str) -> ModelChoice:
    """Make an entry of a config and weights.

    Raises:
        UserError: If the config cannot be read, or is of no task that can be shown.
    """
    task = library_of(load_config(config), purpose=f'config {config}').task
    name = f'{Path(config).stem} ({Path(weights).stem})'
    return ModelChoice(name, task, config, weights)


def find_models(folder: Path) -> tuple[list[ModelChoice], list[str]]:
    """List the trainings in a folder of work dirs, each with its best checkpoint.

    Returns:
        The models, and of each training that is left out the reason.
    """
    found, left_out = [], []
    for work_dir in work_dirs_below(folder):
        try:
            weights = checkpoint_in(work_dir, which='best')
            found.append(describe_model(str(config_in(work_dir)), str(weights)))
        except UserError as error:
            left_out.append(f'{work_dir}: {error}')
    return found, left_out


class ModelShelf:
    """Predict with the models of a list, one request at a time.

    Args:
        choices: The list.
        device: See ``SwinV2Inferencer``.
    """

    def __init__(self, choices: Iterable[ModelChoice], *, device: str | None = None) -> None:
        self.choices = list(choices)
        self.device = device
        self._loaded: OrderedDict[int, SwinV2Inferencer] = OrderedDict()
        self._windows: dict[int, tuple] = {}
        self._lock = threading.Lock()

    def predict(
        self, number: int, image: np.ndarray, *, window_size: int | None, score_threshold: float
    ) -> tuple[Prediction, np.ndarray]:
        """Predict for one image.

        Args:
            number: Place of the model in the list.
            image: (H, W, 3), BGR.
            window_size: In tokens; ``None`` for the window of the config.
            score_threshold: Detections below are not drawn.

        Returns:
            The prediction, and its visualization (H, W, 3), BGR.

        Raises:
            UserError: If the model cannot be loaded, or the window does not fit.
        """
        with self._lock:
            inferencer = self._take(number, window_size)
            (prediction,) = inferencer([image])
            return prediction, inferencer.draw(prediction, score_threshold=score_threshold)

    def attention(
        self, number: int, image: np.ndarray, *, window_size: int | None, pixel: Size
    ) -> bytes:
        """Draw the attention of a pixel as a PNG file; see ``attention_picture``."""
        with self._lock:
            inferencer = self._take(number, window_size)
            return attention_picture(inferencer, image, pixel=pixel)

    def _take(self, number: int, window_size: int | None) -> SwinV2Inferencer:
        if number not in self._loaded:
            choice = self.choices[number]
            inferencer = SwinV2Inferencer(choice.config, choice.weights, device=self.device)
            self._windows[number] = tuple(b.window_sizes for b in find_backbones(inferencer.model))
            self._loaded[number] = inferencer
        self._loaded.move_to_end(number)
        while len(self._loaded) > _MOST_LOADED:
            self._loaded.popitem(last=False)
        inferencer = self._loaded[number]
        for backbone, own in zip(
            find_backbones(inferencer.model), self._windows[number], strict=True
        ):
            backbone.set_window_size(own if window_size is None else window_size)
        return inferencer
