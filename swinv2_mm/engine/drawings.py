"""Write the visualization of every test image to a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from mmengine.visualization import Visualizer

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.output_names import OutputNames

# A visualizer of the libraries draws predictions by one of these methods.
_METHODS = ('add_datasample', 'visualize_cls')


def name_drawings(
    visualizer: Visualizer,
    *,
    folder: Path,
    roots: Sequence[str],
    paths: Callable[[], Iterable[str]],
    draw: Callable[[np.ndarray, Any], np.ndarray | None],
) -> None:
    """Have a visualizer name its drawings by the path of each image in its data set.

    The libraries' hooks take the bare name of a file, which several folders may have.

    Args:
        visualizer: Visualizer of a run; only this object is changed.
        folder: Receives the drawings.
        roots: Folders of images; names are relative to the first that holds an image.
        paths: Returns all images of the data set. Each of several processes draws a part of them,
            under the names that one would give.
        draw: Returns the visualization, BGR, of an image (RGB) and its data sample, or ``None`` to
            leave it to the visualizer.
    """
    names = DrawingNames(roots, paths)
    for method in _METHODS:
        if default := getattr(visualizer, method, None):
            setattr(visualizer, method, _named(default, names, folder, draw))


class DrawingNames:
    """The names of drawings, the same in every process.

    Args:
        roots: See ``name_drawings``.
        paths: See ``name_drawings``.
    """

    def __init__(self, roots: Sequence[str], paths: Callable[[], Iterable[str]]) -> None:
        self._roots = [PurePath(os.path.abspath(root)) for root in roots]
        self._paths = paths
        self._names = OutputNames()

    def take(self, path: str) -> str:
        """Return the name of an image; another one each time that a data set has it twice."""
        return self._planned.pop(os.path.abspath(path), None) or self._reserve(path)

    @cached_property
    def _planned(self) -> dict[str, str]:
        # The data set is built when the test begins.
        listed = dict.fromkeys(map(os.path.abspath, self._paths()))
        return {path: self._reserve(path) for path in listed}

    def _reserve(self, path: str) -> str:
        place = PurePath(os.path.abspath(path))
        above = (root for root in self._roots if place.is_relative_to(root))
        return self._names.reserve(
            str(place.relative_to(next(above, place.parent)).with_suffix(''))
        )


def _named(
    default: Callable[..., None],
    names: DrawingNames,
    folder: Path,
    draw: Callable[[np.ndarray, Any], np.ndarray | None],
) -> Callable[..., None]:
    def draw_to_own_file(*args: Any, **kwargs: Any) -> None:
        file = folder / f'{names.take(kwargs["data_sample"].get("img_path") or "image")}.png'
        image = kwargs['image'] if 'image' in kwargs else args[1]
        picture = draw(image, kwargs['data_sample'])
        if picture is None:
            default(*args, **{**kwargs, 'out_file': str(file)})
            return
        atomic_write(file, cv2.imencode('.png', picture)[1].tobytes())

    return draw_to_own_file
