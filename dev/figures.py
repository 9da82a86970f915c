"""Make all figures of the README and the documentation, and the scores beside them, from one run.

What ``make demo`` leaves is drawn: predictions, position biases, report and demo page (in
Chromium; requirements/browser.txt, requirements/demo_page.txt). ``scores.json`` holds the scores
of these models; a test compares README and documentation with it.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from dev.browser import chromium
from swinv2_mm.analysis.bias_maps import BiasMaps, bias_maps, draw_bias_maps
from swinv2_mm.analysis.canvas import new_figure, style
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.checkpoint.loading import find_backbone
from swinv2_mm.cli import report, test
from swinv2_mm.cli.demonstrations import TASKS
from swinv2_mm.cli.running import run_tool
from swinv2_mm.demo_page.examples import example_images
from swinv2_mm.demo_page.model_shelf import ModelShelf, find_models
from swinv2_mm.demo_page.page import serving
from swinv2_mm.engine.work_dir import checkpoint_in, config_in
from swinv2_mm.errors import UserError
from swinv2_mm.inference import SwinV2Inferencer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
SCORES = 'scores.json'
MOST_BYTES = 150_000
# Windows of the training and of the transfer.
WINDOW, LARGER_WINDOW = 8, 16
SCREENS = {
    'desktop': {'viewport': {'width': 1280, 'height': 900}},
    'phone': {'viewport': {'width': 390, 'height': 844}},
    'dark': {'viewport': {'width': 1280, 'height': 900}, 'color_scheme': 'dark'},
}
_SCORE = 0.5
_NUM_PICTURES = 4
# Stage and block whose biases are shown: two of its heads beside the pictures.
_LAYER = (2, 1)
_NUM_HEADS = 2
_WAIT_MS = 60_000


def save_small(picture: Image.Image, path: Path) -> None:
    """Write a picture as WebP, with the best quality that keeps it small."""
    for quality in range(92, 0, -6):
        stream = io.BytesIO()
        picture.convert('RGB').save(stream, 'WEBP', quality=quality, method=6)
        if stream.tell() <= MOST_BYTES:
            break
    atomic_write(path, stream.getvalue())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure of matplotlib."""
    stream = io.BytesIO()
    figure.savefig(stream, format='png', dpi=110)
    save_small(Image.open(stream), path)


def percent(metrics: dict[str, float], key: str) -> float:
    """Return a score in percent: CocoMetric counts from 0 to 1, the others in percent."""
    return round(float(metrics[key]) * (100 if key.startswith('coco/') else 1), 1)


def scores_of(work_dir: Path) -> dict[str, dict[str, float]]:
    """Read the scores that the demo printed, and test its models at a larger window."""
    found: dict[str, dict[str, float]] = {}
    for task in TASKS:
        folder = work_dir / task.name
        metrics = json.loads((folder / 'scores.json').read_text())['metrics']
        with tempfile.TemporaryDirectory() as place:
            larger = test(
                config_in(folder), checkpoint_in(folder), window_size=LARGER_WINDOW, work_dir=place
            )
        for key, name, _ in task.metrics:
            found[f'{task.name}: {name}'] = {
                f'window {WINDOW}': percent(metrics, key),
                f'window {LARGER_WINDOW}': percent(larger, key),
            }
    return found


def draw_predictions(detector: SwinV2Inferencer, images: Sequence[str]) -> Figure:
    """Draw detections, and beside them one bias network at two windows."""
    backbone = find_backbone(detector.model)
    groups = [
        bias_maps(backbone, layer=_LAYER, window=(window, window))
        for window in (WINDOW, LARGER_WINDOW)
    ]
    figure = new_figure(width=11.6, height=5.9)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 0.96))
    for ax, image in zip(left.subplots(2, 2).flatten(), images, strict=True):
        (prediction,) = detector([image])
        ax.imshow(detector.draw(prediction, score_threshold=_SCORE)[..., ::-1])
        ax.set_axis_off()
    draw_transfer(right, groups)
    return figure


def draw_transfer(figure: Figure, groups: Sequence[BiasMaps]) -> None:
    """Draw the biases of two heads at the trained window and at a larger one."""
    shown = [group.maps[:_NUM_HEADS].float().numpy() for group in groups]
    lowest, highest = min(maps.min() for maps in shown), max(maps.max() for maps in shown)
    axes = figure.subplots(2, _NUM_HEADS)
    for row, group, maps in zip(axes, groups, shown, strict=True):
        side = group.window[0]
        for ax, head, values in zip(row, range(_NUM_HEADS), maps, strict=True):
            extent = (0.5 - side, side - 0.5, side - 0.5, 0.5 - side)
            ax.imshow(values, cmap='viridis', extent=extent, vmin=lowest, vmax=highest)
            ax.set_title(f'bias of head {head} at window {side}', fontsize=10)
            ax.set_xticks([1 - side, 0, side - 1])
            ax.set_yticks([1 - side, 0, side - 1])
            if side > WINDOW:
                inner = 2 * WINDOW - 1
                corner = (0.5 - WINDOW, 0.5 - WINDOW)
                ax.add_patch(Rectangle(corner, inner, inner, fill=False, edgecolor='white'))


@contextmanager
def opened(browser: Browser, url: str, **screen: object) -> Iterator[Page]:
    """Open a page on a screen."""
    page = browser.new_page(**screen)
    page.set_default_timeout(_WAIT_MS)
    page.goto(url)
    try:
        yield page
    finally:
        page.close()


def shot(page: Page, path: Path, *, height: int) -> None:
    """Take a picture of the upper part of a page."""
    size = page.viewport_size or {}
    page.set_viewport_size({'width': size['width'], 'height': height})
    page.wait_for_timeout(1000)
    save_small(Image.open(io.BytesIO(page.screenshot())), path)


def show_reports(browser: Browser, work_dir: Path, out: Path) -> None:
    """Take pictures of a report on every screen, and of the images in it."""
    with tempfile.TemporaryDirectory() as place:
        page_file = report(work_dir / 'detection', out=Path(place, 'report.html'))
        for name, screen in SCREENS.items():
            with opened(browser, page_file.as_uri(), **screen) as page:
                shot(page, out / f'report-{name}.webp', height=1500 if name == 'phone' else 900)
        with opened(browser, f'{page_file.as_uri()}#pictures', **SCREENS['desktop']) as page:
            shot(page, out / 'report-pictures.webp', height=900)


def show_demo_page(browser: Browser, work_dir: Path, out: Path) -> None:
    """Take pictures of the demo page with a prediction on every screen."""
    choices, _ = find_models(work_dir)
    choices.sort(key=lambda choice: choice.task != 'detection')
    with serving(ModelShelf(choices, device='cpu')) as url:
        for name, screen in SCREENS.items():
            theme = 'dark' if name == 'dark' else 'light'
            with opened(browser, f'{url}?__theme={theme}', **screen) as page:
                page.locator('#examples button').nth(1).click()
                page.locator('#status').get_by_text(re.compile('Objects')).wait_for()
                page.locator('#picture img').wait_for()
                page.wait_for_load_state('networkidle')
                height = 2000 if name == 'phone' else 1150
                shot(page, out / f'demo-page-{name}.webp', height=height)


def make_figures(work_dir: Path, out: Path) -> None:
    """Make everything.

    Args:
        work_dir: Work dir of ``quickstart``.
        out: Folder for the figures.

    Raises:
        UserError: If a model or the browser is missing.
    """
    if missing := [t.name for t in TASKS if not (work_dir / t.name / 'scores.json').is_file()]:
        raise UserError(f'{work_dir} holds no finished {missing[0]}: run make demo first')
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / SCORES, json.dumps(scores_of(work_dir), indent=2) + '\n')
    folder = work_dir / 'detection'
    config = str(config_in(folder))
    detector = SwinV2Inferencer(config, checkpoint_in(folder), device='cpu')
    images = example_images(config)[:_NUM_PICTURES]
    with style():
        save_figure(draw_predictions(detector, images), out / 'predictions.webp')
        folder = work_dir / 'classification'
        classifier = SwinV2Inferencer(config_in(folder), checkpoint_in(folder), device='cpu')
        backbone = find_backbone(classifier.model)
        groups = [
            bias_maps(backbone, layer=layer, window=(window, window))
            for layer in ((1, 0), _LAYER)
            for window in (WINDOW, LARGER_WINDOW)
        ]
        save_figure(draw_bias_maps(groups), out / 'bias-windows.webp')
    with chromium() as browser:
        show_reports(browser, work_dir, out)
        show_demo_page(browser, work_dir, out)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/quickstart'), help='of make demo'
    )
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'images', help='folder')
    args = parser.parse_args(argv)
    make_figures(args.work_dir, args.out)


if __name__ == '__main__':
    run_tool(main)
