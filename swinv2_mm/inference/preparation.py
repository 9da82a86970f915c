"""Prepare an image for a model by the test pipeline of its config."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from swinv2_mm.config.datasets import testing_pipeline, type_name
from swinv2_mm.data_check.loading import LoadCheckedImage
from swinv2_mm.datasets.files import shown
from swinv2_mm.datasets.image_files import ImageLimits, image_limits
from swinv2_mm.errors import DataError, UserError, one_line

ImageInput = str | os.PathLike | np.ndarray
# Loaders that read a plain image as three colours, as ours does.
_PLAIN_LOADERS = ('LoadCheckedImage', 'LoadImageFromFile')


@dataclass
class LoadedInput:
    """An image, ready for the model.

    Attributes:
        source: What the caller gave.
        image: (H, W, 3), BGR, upright.
        data: What the pipeline made of it: one element of a batch.
        shape: Shape of the input of the model; only equal ones can go together.
    """

    source: Any
    image: np.ndarray
    data: dict
    shape: tuple[int, ...]


def prepare_config(cfg: Config) -> None:
    """Reduce the test pipeline to what needs an image only; its first entry stays the loader.

    Raises:
        UserError: If there is no test pipeline, or it reads something else than plain images.
    """
    pipeline = testing_pipeline(cfg)
    if not pipeline:
        raise UserError('the config has no test_dataloader.dataset.pipeline to prepare images by')
    name = type_name(pipeline[0])
    if name not in _PLAIN_LOADERS or pipeline[0].get('color_type', 'color') != 'color':
        raise UserError(
            f'the test pipeline of the config begins with {name}; only plain images can be given'
        )
    steps = [s for s in pipeline[1:] if not type_name(s).startswith('Load')]
    dataset = dict(pipeline=[dict(type='LoadCheckedImage'), *steps])
    cfg.test_dataloader = dict(dataset=dataset)


def build_preparation(cfg: Config) -> Callable[[ImageInput, int], LoadedInput]:
    """Build a function from an image and its number to what the model takes.

    It is safe to call it from several threads. It raises ``DataError`` if the image cannot be
    read.

    Args:
        cfg: What ``prepare_config`` left, perhaps with views for test-time augmentation.
    """
    steps = cfg.test_dataloader.dataset.pipeline[1:]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        transforms = Compose(copy.deepcopy(steps))

    limits = image_limits()
    if 'ResizeEdge' not in str(steps):
        # Only where the shorter side gets a given length does a thin image become a large one.
        limits = replace(limits, side_px=None, aspect_ratio=None)

    def prepare(source: ImageInput, number: int) -> LoadedInput:
        results = _read(source, limits=limits)
        image = results['img']
        try:
            data = transforms({**results, 'img_id': number})
        except Exception as error:
            # Such as an image that is so narrow that nothing is left of it at another scale.
            reason = one_line(f'{type(error).__name__}: {error}')
            path = results['img_path']
            name = f'image {shown(path)}' if path else 'the image'
            raise DataError(f'{name} cannot be used: {reason}') from error
        shape = data['loaded'].results['img'] if 'loaded' in data else data['inputs']
        return LoadedInput(source, image, data, tuple(shape.shape))

    return prepare


def _read(source: ImageInput, *, limits: ImageLimits) -> dict:
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise DataError(
                'an array must be an image (H, W, 3) of bytes, BGR; this one is '
                f'{source.shape} of {source.dtype}'
            )
        shape = source.shape[:2]
        limits.check(shape[::-1], name='the image')
        return dict(img=source, img_path='', img_shape=shape, ori_shape=shape)
    return LoadCheckedImage(limits).transform(dict(img_path=os.fspath(source)))
