# PYTHON_ARGCOMPLETE_OK
"""Time the drawing of detections: infer with and without pictures, and three ways to draw.

A trained detector of the digits predicts on images that are put together from the validation set,
so that each has more digits than detections are kept. The ways to draw: ours, the functions of
torchvision, the visualizer of mmdet.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinv2_mm.cli.arguments import FOLDERS, new_parser, parse

if TYPE_CHECKING:
    import numpy as np

    from swinv2_mm.inference import Prediction

_ROUNDS = 3


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python benchmarks/drawing.py
        python benchmarks/drawing.py --images 4 --drawn 1 --work-dir work_dirs/quickstart/detection
        """,
    )
    add = parser.add_argument
    add(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/quickstart/detection'),
        metavar='FOLDER',
        help='a training of the detector',
    ).completer = FOLDERS
    add('--images', type=int, default=50, metavar='N', help='images to predict for')
    add('--drawn', type=int, default=3, metavar='N', help='of them, drawn in each way')
    add('--detections', type=int, default=100, metavar='N', help='detections per image')
    add('--size', type=int, nargs=2, default=[1024, 682], metavar=('W', 'H'), help='pixels')
    return parse(parser)


def make_images(folder: Path, sources: list[str], *, number: int, size: tuple[int, int]) -> None:
    """Cover images of a size with small ones, each time in another order."""
    import cv2
    import numpy as np

    from swinv2_mm.datasets.image_files import read_image

    tiles = [read_image(path) for path in sources]
    width, height = size
    side = tiles[0].shape[0]
    rng = np.random.default_rng(0)
    for at in range(number):
        rows = [
            np.hstack([tiles[k] for k in rng.integers(len(tiles), size=-(-width // side))])
            for _ in range(-(-height // side))
        ]
        cv2.imwrite(str(folder / f'{at:03d}.png'), np.vstack(rows)[:height, :width])


def seconds_of(draw: Callable[[Prediction], Any], predictions: list[Prediction]) -> float:
    """Return the median time of an image; each is drawn several times, and the fastest counts."""
    best = []
    for prediction in predictions:
        times = []
        for _ in range(_ROUNDS):
            start = time.process_time()
            draw(prediction)
            times.append(time.process_time() - start)
            if times[-1] > 2:
                break
        best.append(min(times))
    return statistics.median(best)


def draw_by_torchvision(prediction: Prediction) -> np.ndarray:
    """Draw masks, boxes and names by the functions of torchvision."""
    import torch
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    found = prediction.sample.pred_instances
    names = [prediction.classes.name(label) for label in found.labels.tolist()]
    colours = [prediction.classes.colour(label) for label in found.labels.tolist()]
    picture = torch.from_numpy(prediction.image[..., ::-1].copy()).permute(2, 0, 1)
    picture = draw_segmentation_masks(picture, found.masks.bool(), alpha=0.45, colors=colours)
    words = [f'{n} {s:.2f}' for n, s in zip(names, found.scores.tolist(), strict=True)]
    picture = draw_bounding_boxes(picture, found.bboxes, labels=words, colors=colours, width=2)
    return picture.permute(1, 2, 0).numpy()


def draw_by_mmdet(prediction: Prediction) -> np.ndarray:
    """Draw by the visualizer of mmdet, as its inferencer does."""
    from mmdet.visualization import DetLocalVisualizer

    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = {'classes': prediction.classes.names, 'palette': 'random'}
    visualizer.add_datasample(
        'image', prediction.image[..., ::-1], prediction.sample, draw_gt=False, pred_score_thr=0.0
    )
    return visualizer.get_image()


def main() -> None:
    """Measure and print."""
    args = parse_args()
    import numpy as np
    import torch
    from rich.console import Console
    from rich.table import Table

    # First: it puts the stand-in for mmcv's compiled ops in place.
    import swinv2_mm.models  # noqa: F401
    from benchmarks.machine import summarize_machine
    from swinv2_mm.cli import infer
    from swinv2_mm.demo_page.examples import example_images
    from swinv2_mm.engine.work_dir import checkpoint_in, config_in
    from swinv2_mm.inference import SwinV2Inferencer

    config, weights = str(config_in(args.work_dir)), str(checkpoint_in(args.work_dir))
    width, height = args.size
    # Both transforms of the recipe's test pipeline after the loading: enlarged as little as can be.
    options = [
        'model.test_cfg.rcnn.score_thr=0.0',
        f'model.test_cfg.rcnn.max_per_img={args.detections}',
        'model.test_cfg.rpn.max_per_img=1000',
        f'test_dataloader.dataset.pipeline.1.scale=({width},{height})',
    ]
    console = Console()
    with tempfile.TemporaryDirectory() as place:
        images = Path(place, 'images')
        images.mkdir()
        make_images(images, list(example_images(config)), number=args.images, size=(width, height))
        totals = {}
        for name, threshold in (('without pictures', None), ('with pictures', 0.0)):
            start = time.process_time()
            infer(
                config,
                weights,
                images,
                out=Path(place, name),
                score_threshold=threshold,
                options=options,
            )
            totals[name] = time.process_time() - start
        inferencer = SwinV2Inferencer(config, weights, options=options)
        predictions = list(inferencer(sorted(images.iterdir())[: args.drawn]))
    counts = [len(prediction.sample.pred_instances) for prediction in predictions]
    shares = [float(np.mean(p.sample.pred_instances.masks.any(0).numpy())) for p in predictions]
    console.print(summarize_machine(torch.device('cpu')))
    console.print(
        f'{args.images} images of {width} x {height}, {min(counts)} to {max(counts)} detections '
        f'each, whose masks cover {100 * statistics.mean(shares):.0f} % of an image'
    )
    table = Table('infer', 'processor seconds', 'per image')
    for name, seconds in totals.items():
        table.add_row(name, f'{seconds:.1f}', f'{seconds / args.images:.3f}')
    console.print(table)
    table = Table('drawing', 'processor seconds per image')
    ways = {
        'swinv2_mm': lambda prediction: inferencer.draw(prediction, score_threshold=0.0),
        'torchvision': draw_by_torchvision,
        'mmdet': draw_by_mmdet,
    }
    for name, draw in ways.items():
        table.add_row(name, f'{seconds_of(draw, predictions):.3f}')
    console.print(table)


if __name__ == '__main__':
    import sys

    parse_args()  # answers --help and mistakes before the slow imports
    # Run as a script, this file finds its package beside the project's own.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from swinv2_mm.cli.running import run_tool

    run_tool(main)
