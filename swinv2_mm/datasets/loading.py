"""Reading of images that notices broken files."""

from __future__ import annotations

import io

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps, UnidentifiedImageError

from swinv2_mm.errors import DataError


@TRANSFORMS.register_module()
class LoadCheckedImage(BaseTransform):
    """Load an image for any of the three libraries, refusing one that is broken.

    OpenCV fills what a truncated file lacks with grey and goes on; training would learn from it.

    Required keys: ``img_path``. Added keys: ``img`` (H, W, 3), BGR, uint8, turned upright by its
    EXIF tag; ``img_shape`` and ``ori_shape``, (H, W) in pixels.

    Raises:
        DataError: If the file is missing, not an image, or truncated.
    """

    def transform(self, results: dict) -> dict:
        """Add the image to ``results``."""
        path = results['img_path']
        try:
            with Image.open(io.BytesIO(fileio.get(path))) as image:
                image = ImageOps.exif_transpose(image).convert('RGB')
        except FileNotFoundError as error:
            raise DataError(f'image {path} does not exist') from error
        except UnidentifiedImageError as error:
            raise DataError(
                f'image {path} cannot be read: it is in no known image format'
            ) from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f'image {path} cannot be read: {error}') from error
        results['img'] = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results
