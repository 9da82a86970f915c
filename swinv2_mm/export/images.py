"""Provide real images on which an exported model is compared with the original."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor

from swinv2_mm.config.datasets import check_data
from swinv2_mm.datasets.image_files import is_image_name, read_image
from swinv2_mm.errors import UserError


def read_images(folder: Path, *, num_images: int) -> list[Tensor]:
    """Read the first images of a folder: BGR, each (3, H_px, W_px), uint8.

    Raises:
        UserError: If there is none, or one cannot be read.
    """
    paths = sorted(path for path in folder.glob('**/*') if is_image_name(path.name))
    if not paths:
        raise UserError(f'--images: no image in {folder}')
    images = (read_image(str(path)) for path in paths[:num_images])
    return [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in images]


def first_samples(cfg: Config, *, loader: str, num_images: int) -> list[Tensor]:
    """Return the first images of a data set, as its pipeline prepares them: (3, H_px, W_px).

    Raises:
        UserError: If the config has no such loader, or files are missing.
    """
    if not cfg.get(loader):
        raise UserError(f'the config has no {loader}: name a folder with --images')
    check_data(cfg, [loader])
    dataset = DATASETS.build(cfg[loader].dataset)
    return [dataset[index]['inputs'] for index in range(min(len(dataset), num_images))]


def resized(image: Tensor, *, shape_px: tuple[int, int]) -> Tensor:
    """Fit an image to a size: (3, h, w) -> (3, H_px, W_px), uint8."""
    if tuple(image.shape[1:]) == shape_px:
        return image
    scaled = F.interpolate(
        image[None].float(), size=shape_px, mode='bilinear', align_corners=False, antialias=True
    )
    return scaled[0].round().clamp(0, 255).to(torch.uint8)
