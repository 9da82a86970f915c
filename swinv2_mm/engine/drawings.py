"""Write the visualization of every test image to a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from mmengine.visualization import Visualizer

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.output_names import OutputNames

# Of the libraries' visualizers, one or the other draws a prediction.
_METHODS = ('add_datasample', 'visualize_cls')


def name_drawings(
    visualizer: Visualizer,
    *,
    folder: Path,
    roots: Sequence[str],
    draw: Callable[[np.ndarray, Any], np.ndarray | None],
) -> None:
    """Have a visualizer write its drawings by the place of each image in its data set.

    The libraries' hooks take the bare name of a file, which several folders may have.

    Args:
        visualizer: Of a run; only this object is changed.
        folder: Receives the drawings.
        roots: Folders of images; names are relative to the first that holds an image.
        draw: Returns the visualization, BGR, of an image (RGB) and its data sample, or ``None`` to
            leave it to the visualizer.
    """
    names = OutputNames()
    for method in _METHODS:
        if default := getattr(visualizer, method, None):
            setattr(visualizer, method, _named(default, names, folder, roots, draw))


def _named(
    default: Callable[..., None],
    names: OutputNames,
    folder: Path,
    roots: Sequence[str],
    draw: Callable[[np.ndarray, Any], np.ndarray | None],
) -> Callable[..., None]:
    def draw_to_own_file(*args: Any, **kwargs: Any) -> None:
        path = PurePath(os.path.abspath(kwargs['data_sample'].get('img_path') or 'image'))
        above = (PurePath(os.path.abspath(root)) for root in roots)
        root = next((place for place in above if path.is_relative_to(place)), path.parent)
        name = names.reserve(str(path.relative_to(root).with_suffix('')))
        file = folder / f'{name}.png'
        image = kwargs['image'] if 'image' in kwargs else args[1]
        picture = draw(image, kwargs['data_sample'])
        if picture is None:
            default(*args, **{**kwargs, 'out_file': str(file)})
            return
        atomic_write(file, cv2.imencode('.png', picture)[1].tobytes())

    return draw_to_own_file
