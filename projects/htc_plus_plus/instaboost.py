"""InstaBoost (arXiv 1908.07801): cut out instances, inpaint the background, paste them nearby."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image

from swinv2_mm.errors import UserError

from .instaboost_package import exact_rates, import_package, uncompressed_rle

# The package numbers the instances of an image in eight bits.
_MAX_INSTANCES = 255


@TRANSFORMS.register_module()
class CheckedInstaBoost(BaseTransform):
    """InstaBoost that keeps image, masks, boxes, labels and label map in agreement.

    The package ``instaboostfast`` groups instances whose boxes overlap, draws a move for each
    group, inpaints and pastes the image. Masks and the label map are moved here, by the same
    moves: the package would trace each mask as polygons (which drops small instances silently and
    fails on compressed RLE) and knows no label maps. It goes after the annotations are loaded and
    before anything changes the size of the image.

    Ignored instances and those without a mask pixel stay as they are; an image with more than 255
    movable instances is left alone. What lies under a pasted instance loses those pixels. An
    instance that no pixel is left of is removed from all annotations and counted.

    Required keys: ``img`` (H, W, 3) uint8; ``gt_masks`` as bitmaps (mmdet's ``LoadAnnotations``
    with ``with_mask=True``, polygons and RLE alike), ``gt_bboxes``, ``gt_bboxes_labels``,
    ``gt_ignore_flags``. Optional: ``gt_seg_map`` (H, W): labels move with their pixels; inpainted
    ones become ``ignore_label``. Added key: ``num_lost_instances``.

    It is slow, most of it in OpenCV's inpainting: 0.8 s an image of 640 x 640 px and 2.3 s one of
    1333 x 800 px (mean over ten facades, of which 40 % is instances, on one core). Give it several
    workers, and images of their original size.

    Args:
        apply_rate: Share of images that it changes, in [0, 1].
        action_rates: Relative frequency of ``normal`` (move), ``horizontal``, ``vertical`` (move
            and flip) and ``skip`` per group; they need not add up to 1. A group near the image's
            edge is never flipped.
        scale: Range of the scaling.
        shift_divisor: A group moves by at most its width and height divided by this.
        max_rotation_deg: Largest rotation to either side, a whole number.
        color_rate: Share of the changed images whose colours change too, in [0, 1].
        ignore_label: Label for the pixels of the label map that nothing is known of.

    Raises:
        UserError: If the package is missing, or the masks are missing or not bitmaps.
        ValueError: If a value does not fit.
    """

    def __init__(
        self,
        apply_rate: float = 0.5,
        *,
        action_rates: Mapping[str, float] | None = None,
        scale: tuple[float, float] = (0.8, 1.2),
        shift_divisor: int = 15,
        max_rotation_deg: int = 1,
        color_rate: float = 0.5,
        ignore_label: int = 255,
    ) -> None:
        for name, rate in (('apply_rate', apply_rate), ('color_rate', color_rate)):
            if not 0 <= rate <= 1:
                raise ValueError(f'{name} must be in [0, 1], got {rate}')
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f'scale must be two positive numbers in rising order, got {scale}')
        package = import_package()
        actions, rates = exact_rates(action_rates or {'normal': 1.0})
        self.config = package.InstaBoostConfig(
            actions,
            rates,
            scale,
            shift_divisor,
            shift_divisor,
            (-max_rotation_deg, max_rotation_deg),
            color_rate,
        )
        self.apply_rate = apply_rate
        self.color_rate = color_rate
        self.ignore_label = ignore_label

    def transform(self, results: dict) -> dict:
        """Augment the image and its annotations at a probability of ``apply_rate``."""
        masks = results.get('gt_masks')
        bitmaps = getattr(masks, 'masks', None)
        if not isinstance(bitmaps, np.ndarray):
            raise UserError(
                'CheckedInstaBoost needs masks as bitmaps: put it after '
                'LoadAnnotations(with_bbox=True, with_mask=True), and leave poly2mask on'
            )
        results['num_lost_instances'] = 0
        if np.random.random() >= self.apply_rate:
            return results
        movable = ~np.asarray(results['gt_ignore_flags'], dtype=bool) & bitmaps.any(axis=(1, 2))
        indices = np.flatnonzero(movable)
        if not 0 < len(indices) <= _MAX_INSTANCES:
            return results

        image, moves = self._paste_image(results['img'], bitmaps[indices])
        labels = results.get('gt_seg_map')
        if labels is not None:
            behind = bitmaps[indices].any(axis=0)
            labels = np.where(behind, self.ignore_label, labels).astype(labels.dtype)
        moved = bitmaps.copy()
        # Group that shows at a pixel: what is pasted later lies on top.
        top = np.full(bitmaps.shape[1:], -1, dtype=np.int16)
        for number, (members, move) in enumerate(moves):
            covered = move.paste(bitmaps[indices[members]].any(axis=0)).astype(bool)
            top[covered] = number
            if labels is not None:
                labels[covered] = move.paste(results['gt_seg_map'])[covered]
        for number, (members, move) in enumerate(moves):
            for index in indices[members]:
                moved[index] = move.paste(bitmaps[index]) & (top == number)
        results['img'] = image
        if labels is not None:
            results['gt_seg_map'] = labels
        _replace_masks(results, moved)
        return results

    def _paste_image(
        self, image: np.ndarray, masks: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[list[int], _Move]]]:
        """Draw the moves and make the image: (H, W, 3), (N, H, W) -> image, members and move."""
        from instaboostfast.affine_transform import transform_image
        from instaboostfast.get_instance_group import extract
        from instaboostfast.InstaBoost import randomColor

        annotations = [
            {'category_id': 0, 'segmentation': uncompressed_rle(mask), 'bbox': [x, y, w, h]}
            for mask in masks
            for x, y, w, h in [cv2.boundingRect(mask.astype(np.uint8))]
        ]
        background, cutouts, transforms, bounds, groups = extract(annotations, image, self.config)
        image = transform_image(background, cutouts, transforms)
        if np.random.random() < self.color_rate:
            recoloured = randomColor(Image.fromarray(image[:, :, ::-1]))
            image = np.ascontiguousarray(np.asarray(recoloured)[:, :, ::-1])
        return image, [
            (members, _Move(bounds=tuple(box), **transform))
            for members, transform, box in zip(groups, transforms, bounds, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class _Move:
    """Affine move of a group of instances, with the attribute names of the package.

    Attributes:
        bounds: The group's box before, ``x1, y1, x2, y2``, in px.
        s: Scale.
        theta: Rotation in radians.
        tx: Horizontal position of the group's centre, in px.
        ty: Vertical position of the group's centre, in px.
        flip: ``horizontal``, ``vertical`` or ``None``.
    """

    bounds: tuple[int, int, int, int]
    s: float
    theta: float
    tx: float
    ty: float
    flip: str | None = None

    def paste(self, values: np.ndarray) -> np.ndarray:
        """Move the values of a map inside the bounds; 0 elsewhere. (H, W) -> (H, W)."""
        x1, y1, x2, y2 = self.bounds
        patch = values[y1:y2, x1:x2]
        if self.flip is not None:
            patch = patch[:, ::-1] if self.flip == 'horizontal' else patch[::-1]
        cos, sin = np.cos(self.theta) / self.s, np.sin(self.theta) / self.s
        # From a place in the new map to one in the patch, whose centre comes to (tx, ty).
        matrix = np.array(
            [
                [cos, sin, (x2 - x1) / 2 - cos * self.tx - sin * self.ty],
                [-sin, cos, (y2 - y1) / 2 + sin * self.tx - cos * self.ty],
            ]
        )
        # OpenCV warps few integer types; labels below 2**24 pass through float32 unchanged.
        moved = cv2.warpAffine(
            patch.astype(np.float32),
            matrix,
            values.shape[::-1],
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        )
        return moved.astype(values.dtype)


def _replace_masks(results: dict, masks: np.ndarray) -> None:
    """Replace the masks, fit the boxes of those that changed, and remove lost instances."""
    old, boxes = results['gt_masks'], results['gt_bboxes']
    kept = np.ones(len(masks), dtype=bool)
    corners = boxes.tensor.clone()
    for index in np.flatnonzero((masks != old.masks).any(axis=(1, 2))):
        x, y, w, h = cv2.boundingRect(masks[index].astype(np.uint8))
        corners[index] = corners.new_tensor([x, y, x + w, y + h])
        kept[index] = w > 0
    results['num_lost_instances'] = int((~kept).sum())
    results['gt_bboxes'] = type(boxes)(corners[kept])
    results['gt_masks'] = type(old)(masks[kept], old.height, old.width)
    for key in ('gt_bboxes_labels', 'gt_ignore_flags', 'gt_instances_ids'):
        if results.get(key) is not None:
            results[key] = results[key][kept]
