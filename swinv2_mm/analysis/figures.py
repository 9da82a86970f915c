"""Draw figures of trained models and of trainings: what ``swinv2-mm plot`` writes.

Each function returns a Matplotlib figure; ``canvas.style`` and ``canvas.save`` set its looks and
write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from PIL import Image
from torch import Tensor

from swinv2_mm.checkpoint.building import model_of
from swinv2_mm.config.file import as_config
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.datasets.image_files import read_image
from swinv2_mm.errors import UserError

from .attention_map import attention_maps, draw_attention
from .bias_maps import bias_maps, draw_bias_maps
from .curves import draw_curves, read_records
from .layers import last_blocks, parse_layers
from .rates import draw_rates, layer_rates
from .signal import SignalRecorder, draw_signal

# Mean and standard deviation of ImageNet, RGB in [0, 255], as every config here normalises.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def bias_figure(
    weights: Sequence[str],
    *,
    windows: Sequence[tuple[int, int]] = (),
    layers: Sequence[str] = (),
    heads: Sequence[int] = (),
) -> Figure:
    """Draw the position bias by head, layer and window.

    Args:
        weights: Files of any layout, URLs, or names of released models.
        windows: In tokens; default the pretrained ones.
        layers: Such as ``2.1``; default the first block of each stage.
        heads: Default all.

    Raises:
        UserError: If the weights cannot be read, or have no such layer or head.
    """
    groups = []
    for source, name in zip(weights, _names_of(weights), strict=True):
        backbone = _backbone_of(source)
        chosen = layers or [f'{stage}.0' for stage in range(len(backbone.layers))]
        for layer in parse_layers(chosen, backbone=backbone):
            for window in windows or [backbone.window_sizes[layer[0]]]:
                groups.append(bias_maps(backbone, layer=layer, window=window, source=name))
    # Panels to be compared stand one above the other.
    groups.sort(key=lambda group: group.layer)
    if heads and min(heads) < 0:
        raise UserError('--heads are counted from 0')
    if heads and not any(head < len(group.maps) for group in groups for head in heads):
        raise UserError(f'--heads: these layers have at most {max(len(g.maps) for g in groups)}')
    return draw_bias_maps(groups, heads=heads or None)


@torch.no_grad()
def signal_figure(
    weights: Sequence[str], *, images: Sequence[str | Path], size_px: int = 256
) -> Figure:
    """Draw the amplitude of activations by depth (paper figure 2).

    Args:
        weights: As in ``bias_figure``.
        images: Files to run on.
        size_px: Longer side that the images are resized to.

    Raises:
        UserError: If weights or an image cannot be read.
    """
    inputs = [_normalised(_resized(path, size_px=size_px)[0]) for path in images]
    signals = {}
    for source, name in zip(weights, _names_of(weights), strict=True):
        backbone = _backbone_of(source)
        recorder = SignalRecorder()
        with recorder.watching(backbone):
            for image in inputs:
                backbone(image)
        signals[name] = recorder.amplitudes()
    return draw_signal(signals)


def attention_figure(
    weights: str,
    image: str | Path,
    *,
    pixel: tuple[int, int],
    layers: Sequence[str] = (),
    with_heads: bool = False,
    size_px: int = 512,
    window_size: int | None = None,
) -> Figure:
    """Draw the attention of one pixel over its window, on the image.

    Args:
        weights: As in ``bias_figure``.
        image: File to run on.
        pixel: Its column and row, in pixels of the file.
        layers: Such as ``2.1``; default the last two blocks of each stage.
        with_heads: Whether to draw each head beside the mean.
        size_px: Longer side that the image is resized to.
        window_size: In tokens; default the pretrained one.

    Raises:
        UserError: If the weights or the image cannot be read, or the pixel is outside.
    """
    backbone = _backbone_of(weights)
    if window_size is not None:
        backbone.set_window_size(window_size)
    pixels, (width, height) = _resized(image, size_px=size_px)
    x, y = pixel
    if x >= width or y >= height:
        raise UserError(f'--pixel {x},{y} is outside of {image}, {width} x {height} px')
    place = (y * pixels.shape[0] // height, x * pixels.shape[1] // width)
    chosen = parse_layers(layers, backbone=backbone) or last_blocks(backbone)
    maps = attention_maps(backbone, _normalised(pixels), pixel=place, layers=chosen)
    title = f'Attention of pixel {x},{y} of {Path(image).name} over its window'
    return draw_attention(pixels, maps, pixel=place, with_heads=with_heads, title=title)


def curves_figure(runs: Sequence[str | Path], *, keys: Sequence[str] | None = None) -> Figure:
    """Draw the training curves of runs.

    Args:
        runs: Work dirs, or their ``scalars.json``.
        keys: Scalars to draw; default the main ones.

    Raises:
        UserError: If a run has no logged scalars, or none of that name.
    """
    paths = [Path(run) for run in runs]
    folders = [path.parent.parent if path.name == 'scalars.json' else path for path in paths]
    records = map(read_records, paths)
    return draw_curves(dict(zip(_names_of(folders), records, strict=True)), keys=keys)


def rates_figure(cfg: str | Path | Config, *, options: Sequence[str] = ()) -> Figure:
    """Draw the learning rate and the weight decay of each layer under a config.

    Args:
        cfg: A config file, or a config.
        options: Overrides of config entries, as ``key=value``.

    Raises:
        UserError: If the config is not valid.
    """
    cfg = as_config(cfg, options)
    name = Path(cfg.filename).stem if cfg.filename else 'the config'
    return draw_rates(layer_rates(cfg), title=f'Rates of the optimizer of {name}')


def _backbone_of(weights: str) -> SwinTransformerV2:
    return model_of(weights)[0].backbone


def _names_of(sources: Sequence[str | Path]) -> list[str]:
    """Return short names that tell the sources apart."""
    paths = [Path(source) for source in sources]
    # Every run has its iter_100.pth: of several files, the folder is part of the name.
    for depth in range(min(len(paths), 2), max(2, max(len(path.parts) for path in paths)) + 1):
        names = ['/'.join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def _resized(path: str | Path, *, size_px: int) -> tuple[Tensor, tuple[int, int]]:
    """Read an image and resize its longer side.

    Returns:
        (H, W, 3), RGB in [0, 1], and width and height of the file.

    Raises:
        UserError: If the file is no image.
    """
    if size_px < 1:
        raise UserError(f'--size must be positive, got {size_px}')
    image = Image.fromarray(read_image(str(path))[:, :, ::-1])
    before, scale = image.size, size_px / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in before])
    return torch.from_numpy(np.array(image)).float() / 255, before


def _normalised(image: Tensor) -> Tensor:
    """(H, W, 3) in [0, 1] -> (1, 3, H, W) as the model takes it."""
    return ((255 * image - torch.tensor(_MEAN)) / torch.tensor(_STD)).permute(2, 0, 1)[None]
