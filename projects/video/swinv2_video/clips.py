"""Transforms from a video file to what the recogniser takes.

Between ``LoadClips`` and ``PackClips`` the frames of all clips are under ``img``, as one uint8
tensor (frames, 3, H, W), RGB: torchvision's transforms, which mmpretrain registers as
``torchvision/NAME``, treat all of them alike.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmpretrain.structures import DataSample

from swinv2_mm.errors import UserError

from .sampling import dense_frames, middles, uniform_frames
from .video_file import VideoFile


@TRANSFORMS.register_module()
class LoadClips(BaseTransform):
    """Decode the frames of one or several clips.

    Args:
        clip_len: Frames of a clip.
        sampling: ``dense``: every ``interval``-th frame from some start on. ``uniform``: one frame
            out of each of ``clip_len`` segments of the video.
        interval: For ``dense``.
        num_clips: Clips of a video.
        is_random: Whether the places are drawn, for training, or fixed, for testing.

    Raises:
        ValueError: If a value does not fit.
    """

    def __init__(
        self,
        clip_len: int,
        *,
        sampling: Literal['dense', 'uniform'] = 'dense',
        interval: int = 1,
        num_clips: int = 1,
        is_random: bool = False,
    ) -> None:
        if sampling not in ('dense', 'uniform'):
            raise ValueError(f"sampling must be 'dense' or 'uniform', got '{sampling}'")
        if min(clip_len, interval, num_clips) < 1:
            raise ValueError('clip_len, interval and num_clips of LoadClips must be at least 1')
        self.clip_len = clip_len
        self.sampling = sampling
        self.interval = interval
        self.num_clips = num_clips
        self.is_random = is_random

    def frame_numbers(self, num_frames: int) -> np.ndarray:
        """Say which frames of a video are taken: (clips, clip_len)."""
        shape = (self.num_clips, 1 if self.sampling == 'dense' else self.clip_len)
        if self.is_random:
            # The global generator, which SeedAugmentation seeds.
            positions = np.random.random_sample(shape)
        else:
            positions = np.broadcast_to(middles(self.num_clips)[:, None], shape)
        if self.sampling == 'uniform':
            return uniform_frames(num_frames, positions=positions)
        return dense_frames(
            num_frames, clip_len=self.clip_len, interval=self.interval, positions=positions[:, 0]
        )

    def transform(self, results: dict) -> dict:
        """Add ``img``, ``num_clips`` and ``ori_shape`` (height, width).

        Raises:
            DataError: If the video cannot be read.
        """
        with VideoFile(results['video_path']) as video:
            frames = video.read(self.frame_numbers(video.num_frames).flatten())
        results['img'] = torch.from_numpy(frames).permute(0, 3, 1, 2)
        results['num_clips'] = self.num_clips
        results['ori_shape'] = frames.shape[1:3]
        return results


@TRANSFORMS.register_module()
class SpatialCrops(BaseTransform):
    """Cut one or several squares out of every frame.

    Args:
        size_px: Side of a square.
        num_crops: 1: the middle; 3: the middle and both ends of the longer side; 5: the middle and
            the four corners.

    Raises:
        ValueError: If there is no such number of crops.
    """

    def __init__(self, size_px: int, *, num_crops: int = 1) -> None:
        if num_crops not in (1, 3, 5):
            raise ValueError(f'num_crops must be 1, 3 or 5, got {num_crops}')
        self.size_px = size_px
        self.num_crops = num_crops

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the top left corner (y, x) of each square, in pixels."""
        bottom, right = height - self.size_px, width - self.size_px
        found = [(bottom // 2, right // 2)]
        if self.num_crops == 3:
            ends = ((0, right // 2), (bottom, right // 2))
            found += ends if height > width else ((bottom // 2, 0), (bottom // 2, right))
        elif self.num_crops == 5:
            found += ((0, 0), (0, right), (bottom, 0), (bottom, right))
        return found

    def transform(self, results: dict) -> dict:
        """Make ``img`` (frames, 3, H, W) one of (crops, frames, 3, size_px, size_px).

        Raises:
            UserError: If the frames are too small.
        """
        frames, side = results['img'], self.size_px
        height, width = frames.shape[-2:]
        if min(height, width) < side:
            raise UserError(
                f'SpatialCrops: frames of {width} x {height} are smaller than crops of {side}; '
                'put torchvision/Resize before it'
            )
        squares = [frames[..., y : y + side, x : x + side] for y, x in self.corners(height, width)]
        results['img'] = torch.stack(squares)
        return results


@TRANSFORMS.register_module()
class PackClips(BaseTransform):
    """Pack the views of a video, each clip with each crop, and its label.

    The views of the first clip come first.
    """

    def transform(self, results: dict) -> dict:
        """Return ``inputs`` (views, 3, clip_len, H, W) uint8 and ``data_samples``."""
        views = results['img']
        if views.ndim == 4:
            views = views[None]
        views = views.unflatten(1, (results['num_clips'], -1))
        # (crops, clips, clip_len, 3, H, W) -> (clips, crops, 3, clip_len, H, W)
        views = views.permute(1, 0, 3, 2, 4, 5).flatten(0, 1).contiguous()
        sample = DataSample(
            metainfo={'img_path': results['video_path'], 'ori_shape': results['ori_shape']}
        )
        if 'gt_label' in results:
            sample.set_gt_label(results['gt_label'])
        return {'inputs': views, 'data_samples': sample}
