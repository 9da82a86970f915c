"""Send visualizations of validation images to the backends of a run, such as TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swinv2_mm.data_check.listing import evenly
from swinv2_mm.datasets.image_files import read_image
from swinv2_mm.errors import UserError

_NUM_IMAGES = 8
# Excluded: it writes files of its own, thousands in a long training.
_LOCAL = 'LocalVisBackend'


class PredictionImagesHook(Hook):
    """Log a few validation images with ground truth and prediction, the same at each validation.

    Args:
        draw: Returns the visualization, BGR, of an image (RGB) and its data sample, or ``None``
            if there is nothing to draw.
    """

    priority = 'LOW'

    def __init__(self, draw: Callable[[np.ndarray, Any], np.ndarray | None]) -> None:
        self._draw = draw

    @master_only
    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Log some of the images, spread evenly over the validation set."""
        loader = runner.val_dataloader
        size = loader.batch_size or 1
        number = min(len(loader) * size, len(loader.dataset))
        chosen = evenly(range(number), _NUM_IMAGES)
        for at, sample in enumerate(outputs or (), start=batch_idx * size):
            if at in chosen:
                self._log(runner, sample, name=f'val/{chosen.index(at)}')

    def _log(self, runner: Runner, sample: Any, *, name: str) -> None:
        if not sample.get('img_path'):
            return
        try:
            image = read_image(sample.img_path)
        except UserError as error:
            runner.logger.warning(f'not logged: {error}')
            return
        picture = self._draw(image[..., ::-1], sample)
        if picture is not None:
            shown = np.ascontiguousarray(picture[..., ::-1])
            for backend in backends_of_images(runner.cfg):
                runner.visualizer.get_backend(backend).add_image(name, shown, runner.iter)


def backends_of_images(cfg: Any) -> list[str]:
    """List the visualization backends of a config that show images, by MMEngine's names."""
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or ()
    return [b.get('name', b['type']) for b in backends if b['type'] != _LOCAL]
