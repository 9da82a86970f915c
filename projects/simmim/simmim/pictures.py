"""Visualize original, masked image and reconstruction side by side."""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.registry import VISUALIZERS
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

TITLES = ('original', 'masked', 'reconstruction')
_GREY = 127
_GAP_PX = 4


def panels(image: np.ndarray, sample: DataSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the three pictures that ``TITLES`` names, RGB and uint8.

    Args:
        image: The input of the model, (H, W, 3) in RGB, uint8.
        sample: What ``MaskedImageModel.predict`` returns for it.
    """
    factor = image.shape[0] // sample.mask.shape[0]
    mask = sample.mask.bool().cpu().numpy().repeat(factor, axis=0).repeat(factor, axis=1)
    masked = np.where(mask[..., None], np.uint8(_GREY), image)
    shown = sample.reconstruction.permute(1, 2, 0).round().to('cpu', torch.uint8).numpy()
    return image, masked, shown


@VISUALIZERS.register_module()
class ReconstructionVisualizer(UniversalVisualizer):
    """Draw reconstructions for mmpretrain's ``VisualizationHook``, in validation and test."""

    @master_only
    def visualize_cls(
        self,
        image: np.ndarray,
        data_sample: DataSample,
        *,
        out_file: str | None = None,
        name: str = '',
        step: int = 0,
        **_: Any,  # what the hook passes on for pictures of classes
    ) -> np.ndarray:
        """Draw one sample; the hook calls it by this name, whatever the task.

        Args:
            image: As the data loader gives it, (H, W, 3) in BGR.
            data_sample: See ``panels``.
            out_file: Where to write it; ``None``: to the visualizer's backends.
            name: What the picture is called there.
            step: Iteration of the training.
        """
        parts = panels(np.ascontiguousarray(image[..., ::-1]), data_sample)
        gap = np.full((image.shape[0], _GAP_PX, 3), 255, np.uint8)
        drawn = np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step=step)
        return drawn
