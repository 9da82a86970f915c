"""Real images to compare an exported model with the original on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmcv
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor

from swinv2_mm.config.datasets import check_data
from swinv2_mm.datasets.image_files import is_image_name
from swinv2_mm.errors import UserError


def read_pictures(folder: Path, *, num_pictures: int) -> list[Tensor]:
    """Read the first images of a folder: BGR, each (3, H_px, W_px), uint8.

    Raises:
        UserError: If there is none, or one cannot be read.
    """
    paths = sorted(path for path in folder.glob('**/*') if is_image_name(path.name))
    if not paths:
        raise UserError(f'--images: no image in {folder}')
    pictures = []
    for path in paths[:num_pictures]:
        try:
            picture = mmcv.imread(str(path), channel_order='bgr')
        except OSError as error:
            raise UserError(f'--images: cannot read {path}: {error}') from error
        if picture is None:
            raise UserError(f'--images: {path} is no image')
        pictures.append(torch.from_numpy(picture).permute(2, 0, 1).contiguous())
    return pictures


def samples(cfg: Config, *, loader: str) -> Iterator[dict[str, Any]]:
    """Yield what the data pipeline of a loader makes of each image of its data set.

    Raises:
        UserError: If the config has no such loader, or files are missing.
    """
    if not cfg.get(loader):
        raise UserError(f'the config has no {loader}: name a folder with --images')
    check_data(cfg, [loader])
    dataset = DATASETS.build(cfg[loader].dataset)
    for index in range(len(dataset)):
        yield dataset[index]


def resized(picture: Tensor, *, shape_px: tuple[int, int]) -> Tensor:
    """Fit an image to a size: (3, h, w) -> (3, H_px, W_px), uint8."""
    if tuple(picture.shape[1:]) == shape_px:
        return picture
    scaled = F.interpolate(
        picture[None].float(), size=shape_px, mode='bilinear', align_corners=False, antialias=True
    )
    return scaled[0].round().clamp(0, 255).to(torch.uint8)
