"""Give the visualization of every test image a file name of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from mmengine.visualization import Visualizer

from swinv2_mm.output_names import OutputNames

# Of the libraries' visualizers, one or the other draws a prediction.
_METHODS = ('add_datasample', 'visualize_cls')


def name_drawings(visualizer: Visualizer, *, folder: Path, roots: Sequence[str]) -> None:
    """Have a visualizer write its drawings by the place of each image in its data set.

    The libraries' hooks take the bare name of a file, which several folders may have.

    Args:
        visualizer: Of a run; only this object is changed.
        folder: Receives the drawings.
        roots: Folders of images; names are relative to the first that holds an image.
    """
    names = OutputNames()
    for method in _METHODS:
        if draw := getattr(visualizer, method, None):
            setattr(visualizer, method, _named(draw, names, folder, roots))


def _named(
    draw: Callable[..., None], names: OutputNames, folder: Path, roots: Sequence[str]
) -> Callable[..., None]:
    def draw_to_own_file(*args: Any, **kwargs: Any) -> None:
        path = PurePath(os.path.abspath(kwargs['data_sample'].get('img_path') or 'image'))
        above = (PurePath(os.path.abspath(root)) for root in roots)
        root = next((place for place in above if path.is_relative_to(place)), path.parent)
        name = names.reserve(str(path.relative_to(root).with_suffix('')))
        draw(*args, **{**kwargs, 'out_file': str(folder / f'{name}.png')})

    return draw_to_own_file
