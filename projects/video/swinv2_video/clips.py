"""Define the data pipeline of videos: decode clips, crop, pack.

Between ``LoadClips`` and ``PackClips`` the frames of all clips are under ``img``, as one uint8
tensor (frames, 3, H, W), RGB: torchvision's transforms, which mmpretrain registers as
``torchvision/NAME``, treat all of them alike.
"""

from __future__ import annotations

from collections import Counter
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
        interval: Frames from one to the next, for ``dense``.
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
    """Cut squares out of every frame, at equal distances along the longer side.

    Squares that would be equal, as those of a square frame are, are cut once and count as often.

    Args:
        size_px: Side of a square.
        num_crops: 1: the middle; more: from one end of the longer side to the other.

    Raises:
        ValueError: If there is no such number of crops.
    """

    def __init__(self, size_px: int, *, num_crops: int = 1) -> None:
        if num_crops < 1:
            raise ValueError(f'num_crops must be at least 1, got {num_crops}')
        self.size_px = size_px
        self.num_crops = num_crops

    def corners(self, height: int, width: int) -> dict[tuple[int, int], int]:
        """Return the top left corner (y, x) of each square in pixels, and how often it counts."""
        bottom, right = height - self.size_px, width - self.size_px
        if self.num_crops == 1:
            return {(bottom // 2, right // 2): 1}
        places = [place / (self.num_crops - 1) for place in range(self.num_crops)]
        if height > width:
            return Counter((int(place * bottom), right // 2) for place in places)
        return Counter((bottom // 2, int(place * right)) for place in places)

    def transform(self, results: dict) -> dict:
        """Make ``img`` (frames, 3, H, W) one of (crops, frames, 3, size_px, size_px).

        ``crop_weights`` says how often each crop counts.

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
        corners = self.corners(height, width)
        squares = [frames[..., y : y + side, x : x + side] for y, x in corners]
        results['img'] = torch.stack(squares)
        results['crop_weights'] = list(corners.values())
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
        weights = results.get('crop_weights', [1]) * results['num_clips']
        sample = DataSample(
            metainfo={
                'img_path': results['video_path'],
                'ori_shape': results['ori_shape'],
                'view_weights': weights,
            }
        )
        if 'gt_label' in results:
            sample.set_gt_label(results['gt_label'])
        return {'inputs': views, 'data_samples': sample}
