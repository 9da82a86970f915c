"""Load images and label maps in a pipeline; corrupt files raise DataError."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from swinv2_mm.datasets.files import FileFault, shown
from swinv2_mm.datasets.image_files import ImageLimits, read_image, read_label_map
from swinv2_mm.errors import DataError

from .catalogue import CATALOGUE
from .opening import map_problem

# Label of pixels that no class is learnt from.
_IGNORED = 255


@TRANSFORMS.register_module()
class LoadCheckedImage(BaseTransform):
    """Load an image for any of the three libraries, or raise if it is corrupt.

    OpenCV fills what a truncated file lacks with grey and goes on; training would learn from it.
    ``read_image`` defines how unusual images are read.

    Required keys: ``img_path``. Added keys: ``img`` (H, W, 3), BGR, uint8, turned upright by its
    EXIF tag; ``img_shape`` and ``ori_shape``, (H, W) in pixels.

    Args:
        limits: Limits on images; default those of ``image_limits``.

    Raises:
        DataError: If the file is missing, not an image, truncated, too large, or not of the size
            that its instances were annotated for.
    """

    def __init__(self, limits: ImageLimits | None = None) -> None:
        self.limits = limits

    def transform(self, results: dict) -> dict:
        """Add the image to ``results``."""
        results['img'] = read_image(results['img_path'], limits=self.limits)
        height, width = results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        annotated = (results.get('width'), results.get('height'))
        if 'instances' in results and annotated != (width, height):
            kind = CATALOGUE[
                'image-size' if annotated != (height, width) else 'image-rotated-labels'
            ]
            raise DataError(
                f'image {shown(results["img_path"])} is {width}x{height}, annotated as '
                f'{annotated[0]}x{annotated[1]}: {kind.remedy}'
            )
        return results


@TRANSFORMS.register_module()
class LoadCheckedAnnotations(BaseTransform):
    """Load a label map for mmseg or a semantic branch of mmdet, or raise if it is invalid.

    mmseg cuts values to eight bits and takes a colour image for classes.

    Required keys: ``seg_map_path`` (none of it, and nothing is done), ``ori_shape``; optional
    ``reduce_zero_label`` and ``label_map`` with the meaning that mmseg gives them. Added key:
    ``gt_seg_map`` (H, W), uint8.

    Args:
        num_classes: Values from it on, but 255, are wrong; ``None`` takes that of the data set.

    Raises:
        DataError: If the map is missing, unreadable, in colour, of another size than its image,
            or has a value that is no class.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        self.num_classes = num_classes

    def transform(self, results: dict) -> dict:
        """Add the label map to ``results``."""
        path = results.get('seg_map_path')
        if path is None:
            return results
        try:
            values = read_label_map(path)
        except FileFault as fault:
            raise _error(path, map_problem(fault), fault.detail or str(fault)) from fault
        height, width = results['ori_shape'][:2]
        if values.shape != (height, width):
            detail = f'it is {values.shape[1]}x{values.shape[0]}, the image {width}x{height}'
            raise _error(path, 'label-map-size', detail)
        table = _meanings(results)
        if values.min() < 0 or values.max() > _IGNORED:
            raise _error(
                path, 'label-out-of-range', f'values from {values.min()} to {values.max()}'
            )
        labels = table[values]
        if self.num_classes is not None:
            wrong = (labels >= self.num_classes) & (labels != _IGNORED)
            if wrong.any():
                found = ', '.join(map(str, np.unique(values[wrong])[:5]))
                detail = f'{found} in {wrong.sum()} pixels; there are {self.num_classes} classes'
                raise _error(path, 'label-out-of-range', detail)
        results['gt_seg_map'] = labels
        results['ignore_index'] = _IGNORED
        if 'seg_fields' in results:
            results['seg_fields'].append('gt_seg_map')
        return results


def _meanings(results: dict) -> np.ndarray:
    """The class of every value, (256,), after what mmseg does to them."""
    values = np.arange(_IGNORED + 1)
    if results.get('reduce_zero_label'):
        values = np.where((values == 0) | (values == _IGNORED), _IGNORED, values - 1)
    new = results.get('label_map') or {}
    return np.array([new.get(value, value) for value in values.tolist()], np.uint8)


def _error(path: str, kind: str, detail: str) -> DataError:
    what, remedy = CATALOGUE[kind].what, CATALOGUE[kind].remedy
    return DataError(f'label map {shown(path)}: {what} ({detail}): {remedy}')
