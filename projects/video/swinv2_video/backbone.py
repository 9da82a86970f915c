"""Video-SwinV2: the SwinV2 of the package with an axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from swinv2_mm.core.architectures import resolve_architecture
from swinv2_mm.core.window_partition import Size
from swinv2_mm.models import SwinV2

from .attention import resolve_video_backend
from .inflation import load_inflated


class TubeletEmbed(nn.Module):
    """Cut a video into tubelets, patches over a few frames, and embed them.

    Args:
        in_channels: Channels of a frame.
        dim: Channels C of a token.
        patch_size_px: Sides of a tubelet: frames, pixels, pixels.
    """

    def __init__(self, in_channels: int, *, dim: int, patch_size_px: Size) -> None:
        super().__init__()
        size = tuple(patch_size_px)
        self.proj = nn.Conv3d(in_channels, dim, kernel_size=size, stride=size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pad a video to whole tubelets and embed it.

        Frames are padded with zeros, as an image's are; at the end of the video the last frame is
        repeated, so that one that stands still goes on doing so.

        Shapes:
            (B, in_channels, frames, H_px, W_px) -> (B, T, H, W, C)
        """
        t, p, q = self.proj.stride
        if missing := -x.shape[2] % t:
            x = torch.cat((x, x[:, :, -1:].expand(-1, -1, missing, -1, -1)), dim=2)
        x = F.pad(x, (0, -x.shape[4] % q, 0, -x.shape[3] % p))
        return self.norm(self.proj(x).movedim(1, -1))


@MODELS.register_module()
class VideoSwinV2(SwinV2):
    """SwinV2 on videos: tubelets, windows and position bias with an axis of time.

    Mergings join tokens of a frame only, so time keeps its resolution through all stages (Video
    Swin, arXiv 2106.13230). A map is ``(B, C_i, T, H_i, W_i)``.

    Args:
        arch: See ``SwinTransformerV2``, as for every argument that is not named here.
        window_size: Height and width of a window, as in ``SwinV2``: 16, or one per stage.
        temporal_window_size: Tokens of a window in time.
        pretrained_window_sizes: Height and width of the window that the image weights of
            ``init_cfg`` were trained at, if they do not tell.
        patch_size: Frames, height and width of a tubelet.
        position_bias: ``log_cpb`` or ``linear_cpb``.
        attention: ``auto``, ``eager`` or ``sdpa``.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` with the weights of a SwinV2 for
            images, which are inflated; see ``load_inflated``.

    Raises:
        ValueError: If a value does not fit.
    """

    num_axes = 3
    patch_embed_type = TubeletEmbed
    resolve_backend = staticmethod(resolve_video_backend)

    def __init__(
        self,
        arch: str | dict = 'tiny',
        *,
        window_size: int | Sequence = 8,
        temporal_window_size: int = 8,
        pretrained_window_sizes: int | Sequence | None = None,
        patch_size: Sequence[int] = (2, 4, 4),
        position_bias: str = 'log_cpb',
        **kwargs: Any,
    ) -> None:
        if position_bias == 'table':
            raise ValueError("VideoSwinV2 has no position_bias='table'; take 'log_cpb'")
        whole = all(type(side) is int and side > 0 for side in patch_size)
        if not whole or len(patch_size) != 3 or patch_size[1] != patch_size[2]:
            raise ValueError(
                f'patch_size takes frames and twice the side of a square, got {patch_size}'
            )
        num_stages = len(resolve_architecture(arch).depths)
        windows = {
            name: None if value is None else _volumes(value, [temporal_window_size] * num_stages)
            for name, value in (
                ('window_size', window_size),
                ('pretrained_window_sizes', pretrained_window_sizes),
            )
        }
        super().__init__(
            arch, patch_size_px=patch_size, position_bias=position_bias, **windows, **kwargs
        )

    def set_window_size(
        self, window_size: int | Sequence, *, temporal_window_size: int | None = None
    ) -> None:
        """Change the windows, before or after loading weights; no parameter is touched.

        Args:
            window_size: Height and width, as in ``SwinV2``.
            temporal_window_size: Tokens in time; without it, time is left as it is.

        Raises:
            ValueError: If they are not one positive window per stage.
        """
        sides = [window[0] for window in self.window_sizes]
        if temporal_window_size is not None:
            sides = [temporal_window_size] * len(sides)
        super().set_window_size(_volumes(window_size, sides))

    def bake_position_bias(self, *, largest_px: Any = None) -> None:
        """Raise ``NotImplementedError``: the tables of ``SwinTransformerV2`` have no time axis."""
        raise NotImplementedError('VideoSwinV2 has no table to bake its position bias into')

    def init_weights(self) -> None:
        """Initialise: the hook that a Runner calls.

        Raises:
            CheckpointError: If the weights named in ``init_cfg`` do not fit.
        """
        if self.init_cfg is None:
            self.reset_parameters()
            return
        report = load_inflated(self, self.init_cfg['checkpoint'])
        print_log(f'VideoSwinV2, inflated: {report}', logger='current')


def _volumes(window_size: int | Sequence, sides_in_time: Sequence[int]) -> list[Size]:
    """Give each window of an image model, one or one per stage, its side in time."""
    if not isinstance(window_size, Sequence):
        window_size = [window_size] * len(sides_in_time)
    if len(window_size) != len(sides_in_time):
        raise ValueError(
            f'window_size needs one value or {len(sides_in_time)}, one per stage, got {window_size}'
        )
    return [
        (time, *(sides if isinstance(sides, Sequence) else (sides, sides)))
        for time, sides in zip(sides_in_time, window_size, strict=True)
    ]
