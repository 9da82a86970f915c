# PYTHON_ARGCOMPLETE_OK
"""Draw images, what a masked-image model sees of them, and what it makes of the rest."""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import WEIGHTS, add_cfg_options, add_config, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python projects/simmim/tools/reconstruct.py CONFIG CKPT a.jpg b.jpg --out drawn.png
        """,
    )
    add_config(parser)
    parser.add_argument(
        'checkpoint', help='one of that pre-training, or an official SimMIM file'
    ).completer = WEIGHTS
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE.png|svg', help='the picture'
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the masks, default 0')
    add_cfg_options(parser)
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from swinv2_mm.analysis.canvas import check_path, new_figure, save, style
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.datasets import innermost_datasets
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import UserError

_ROW_INCHES = 2.2


@torch.no_grad()
def reconstruct(
    cfg: Config, checkpoint: str, images: list[str], *, seed: int
) -> list[tuple[np.ndarray, DataSample]]:
    """Return each image as the model gets it, (H, W, 3) in RGB, and what it predicts.

    Raises:
        UserError: If the config is of another kind of model, or a file cannot be read.
    """
    from projects.simmim.simmim import MaskedImageModel
    from projects.simmim.simmim.weights import load_simmim

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        if not isinstance(model, MaskedImageModel):
            raise UserError(f'the config builds a {type(model).__name__}, not a MaskedImageModel')
        (dataset, *_) = innermost_datasets(cfg.test_dataloader.dataset)
        pipeline = Compose(dataset.pipeline)
    load_simmim(model, checkpoint)
    model.eval()
    batch = default_collate(
        [pipeline({'img_path': path, 'sample_idx': seed + i}) for i, path in enumerate(images)]
    )
    inputs = batch['inputs'].flip(1).permute(0, 2, 3, 1).contiguous().numpy()
    return list(zip(inputs, model.val_step(batch), strict=True))


def draw(rows: list[tuple[np.ndarray, DataSample]]) -> Figure:
    """Draw one row per image."""
    from projects.simmim.simmim.pictures import TITLES, panels

    figure = new_figure(width=_ROW_INCHES * len(TITLES), height=_ROW_INCHES * len(rows) + 0.4)
    axes = figure.subplots(len(rows), len(TITLES), squeeze=False)
    for line, (image, sample) in zip(axes, rows, strict=True):
        for ax, picture in zip(line, panels(image, sample), strict=True):
            ax.imshow(picture)
            ax.set_axis_off()
        line[0].set_title(Path(sample.img_path).name, fontsize=7)
        line[1].set_title(f'{sample.mask.float().mean():.0%} hidden', fontsize=7)
        line[2].set_title(f'masked L1 {sample.masked_l1:.3f}', fontsize=7)
    figure.suptitle(', '.join(TITLES))
    return figure


def main() -> None:
    """Reconstruct and draw."""
    args = parse_args()
    check_path(args.out)
    cfg = load_config(args.cfg, args.options)
    rows = reconstruct(cfg, args.checkpoint, args.images, seed=args.seed)
    with style():
        save(draw(rows), args.out)
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
