"""Build the views of test-time augmentation from ``tta = dict(scales=..., flips=...)``.

The test pipeline of a config is cut after the loading of the image. The data loader carries out
the first part; the model the second, once per view and one view at a time, so that never more than
one view is in memory. A view at scale 1.0 without mirroring is the test pipeline, nothing added.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any

import mmcv
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS

from swinv2_mm.config.datasets import innermost_datasets, type_name
from swinv2_mm.config.entries import read_entry
from swinv2_mm.errors import UserError
from swinv2_mm.libraries import library_of
from swinv2_mm.shipped import recipe

# Transforms that set the size of the model's input, and the argument that gives it.
_SIZING = {
    'Resize': 'scale',
    'FixScaleResize': 'scale',
    'ResizeEdge': 'scale',
    'CenterCrop': 'crop_size',
}


def complete_tta(cfg: Config) -> None:
    """Take the entries of ``tta`` that a config lacks from the fragment of its task.

    Raises:
        UserError: If the config is of a library without such a fragment.
    """
    task = library_of(cfg, purpose='--tta').task
    fragment = Config.fromfile(recipe(f'_base_/tta/{task}'))
    cfg.tta = {**fragment.tta, **(read_entry(cfg, 'tta') or {})}


@dataclass(frozen=True)
class LoadedImage:
    """What the loading part of a pipeline produced; opaque to the collating of batches."""

    results: dict


@TRANSFORMS.register_module()
class KeepLoaded(BaseTransform):
    """Stop a pipeline after loading; the model runs the rest, once per view."""

    def transform(self, results: dict) -> dict:
        """Wrap all results."""
        return {'loaded': LoadedImage(results)}


@TRANSFORMS.register_module()
class MirrorImage(BaseTransform):
    """Mirror the image without a change of its meta information.

    mmdet's heads know of a flip and undo it in their own, faulty ways (the mask branch of Cascade
    R-CNN and HTC crashes); mmseg's undo it, too. Here the model sees a plain image, and what it
    predicts is mirrored back in the coordinates of the original image.
    """

    def __init__(self, direction: str) -> None:
        self.direction = direction

    def transform(self, results: dict) -> dict:
        """Replace the image."""
        # A copy: NumPy calls a mirrored view of one column contiguous, and torch refuses it.
        results['img'] = mmcv.imflip(results['img'], direction=self.direction).copy()
        return results


@dataclass(frozen=True)
class View:
    """One view of an image: its scale and flip.

    Attributes:
        mirroring: A key of ``FLIPS``.
        transforms: The second part of the pipeline.
    """

    mirroring: str
    transforms: Callable[[dict], dict]

    def batch(self, loaded: Sequence[LoadedImage]) -> dict:
        """The images as the model's ``test_step`` takes them."""
        return pseudo_collate([self.transforms(copy.deepcopy(i.results)) for i in loaded])


def build_views(configs: Sequence[dict]) -> list[View]:
    """Build the transforms of views; the default scope must be that of the config."""
    return [View(c['mirroring'], Compose(c['transforms'])) for c in configs]


def split_test_pipeline(cfg: Config) -> list[dict]:
    """End the test data's pipelines after the loading, and describe the views that go on.

    Args:
        cfg: A whole config with an entry ``tta``; its ``test_dataloader`` is changed.

    Returns:
        For ``build_views``. The order is that of ``tta.scales``, each with all ``tta.flips``.

    Raises:
        UserError: If the entries of ``tta`` do not fit each other or the test pipeline.
    """
    tta = read_entry(cfg, 'tta')
    datasets = [d for d in innermost_datasets(cfg.test_dataloader.dataset) if 'pipeline' in d]
    if not datasets or any(d.pipeline != datasets[0].pipeline for d in datasets):
        raise UserError('--tta: test_dataloader needs data sets with one and the same pipeline')
    pipeline = [dict(t) for t in datasets[0].pipeline]
    start = 1 + next((i for i, t in enumerate(pipeline) if _loads_image(t)), -1)
    loading, rest = pipeline[:start], pipeline[start:]
    for dataset in datasets:
        dataset.pipeline = [*loading, dict(type='KeepLoaded')]
    # Views make batches themselves.
    cfg.test_dataloader.collate_fn = dict(type='pseudo_collate')
    return [
        dict(mirroring=flip, transforms=_mirrored(_resized(rest, scale), flip))
        for scale, flip in product(tta['scales'], tta['flips'])
    ]


def _loads_image(transform: dict) -> bool:
    name = type_name(transform)
    return name.startswith('Load') and 'Image' in name


def _resized(transforms: list[dict], scale: Any) -> list[dict]:
    """The transforms for another size; at factor 1 they stay as they are."""
    if scale == 1:
        return copy.deepcopy(transforms)
    sizing = [t for t in transforms if type_name(t) in _SIZING]
    if not isinstance(scale, Real):
        if any(type_name(t) not in ('Resize', 'FixScaleResize') for t in sizing) or len(sizing) > 1:
            raise UserError('tta.scales: this test pipeline crops; give factors, not pixels')
        scale = tuple(scale)
        if not sizing:
            return [dict(type='Resize', scale=scale, keep_ratio=True), *copy.deepcopy(transforms)]
    elif not sizing:
        resize = dict(type='Resize', scale_factor=float(scale), keep_ratio=True)
        return [resize, *copy.deepcopy(transforms)]
    return [
        _at_scale(t, scale) if type_name(t) in _SIZING else copy.deepcopy(t) for t in transforms
    ]


def _at_scale(transform: dict, scale: Any) -> dict:
    changed = copy.deepcopy(transform)
    argument = _SIZING[type_name(transform)]
    if not isinstance(scale, Real):
        changed.pop('scale_factor', None)
        return {**changed, argument: scale}
    rounded = round
    if changed.get(argument) is None:
        argument, rounded = 'scale_factor', float
    size = changed[argument]
    if isinstance(size, Sequence):
        changed[argument] = tuple(rounded(scale * side) for side in size)
    else:
        changed[argument] = rounded(scale * size)
    return changed


def _mirrored(transforms: list[dict], mirroring: str) -> list[dict]:
    """Mirror after the last change of size: before annotations are read, and before padding."""
    if mirroring == 'none':
        return transforms
    after = 1 + max((i for i, t in enumerate(transforms) if type_name(t) in _SIZING), default=-1)
    mirror = dict(type='MirrorImage', direction=mirroring)
    return [*transforms[:after], mirror, *transforms[after:]]
