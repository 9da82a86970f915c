"""Videos whose class is the direction in which a digit moves over a photograph.

No single frame tells the class: where the digit starts is drawn evenly from the whole frame, and
what leaves it at one side comes back at the other, so that at any time any place is as likely,
whatever the direction; and every frame is coded by itself (Motion JPEG), so that no trace of an
earlier one is left in it. Digits and photograph parts of ``val`` do not occur in ``train``.

    python -m projects.video.swinv2_video.moving_digits FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

from projects.digits.photographs import load_regions, random_crop

# Right, then clockwise: pixels to the right and downwards from one frame to the next.
DIRECTIONS = ((3, 0), (2, 2), (0, 3), (-2, 2), (-3, 0), (-2, -2), (0, -3), (2, -2))
CLASSES = ('right', 'down_right', 'down', 'down_left', 'left', 'up_left', 'up', 'up_right')
SIZE_PX = 48
_DIGIT_PX = 20
_NUM_FRAMES = (10, 14)
_RATE = 10
# load_digits keeps the order of writing: a cut by index shares at most one writer.
_TRAIN_RATE = 0.8


def moving_digit(
    digit: np.ndarray, background: np.ndarray, *, direction: int, num_frames: int, start: np.ndarray
) -> np.ndarray:
    """Draw a digit that moves, and comes back at the other side.

    Args:
        digit: Opacity in [0, 1], (h, w).
        background: (H, W, 3) in [0, 1].
        direction: Index into ``DIRECTIONS``.
        num_frames: Frames.
        start: Row and column of the digit's top left corner, in pixels.

    Shapes:
        -> (num_frames, H, W, 3) uint8
    """
    canvas = np.zeros(background.shape[:2])
    canvas[: digit.shape[0], : digit.shape[1]] = digit
    dx, dy = DIRECTIONS[direction]
    frames = []
    for time in range(num_frames):
        opacity = np.roll(canvas, (start[0] + dy * time, start[1] + dx * time), axis=(0, 1))
        frames.append(background * (1 - opacity[..., None]) + opacity[..., None])
    return (np.stack(frames) * 255).round().astype(np.uint8)


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = 'mjpeg',
    pix_fmt: str = 'yuvj420p',
    rate: int = _RATE,
    options: dict[str, str] | None = None,
) -> None:
    """Encode frames (n, H, W, 3), uint8 RGB; the suffix of the path says in which container.

    Args:
        path: The file.
        frames: The pictures.
        codec: Name of an encoder of FFmpeg.
        pix_fmt: Pixel format that it takes.
        rate: Frames per second.
        options: Options of the encoder.
    """
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())


def make_moving_digits(
    root: Path, *, num_train: int = 640, num_val: int = 160, seed: int = 0, progress: bool = True
) -> None:
    """Write ``train`` and ``val`` with ``train.txt`` and ``val.txt``, as many of each class."""
    splits: list[tuple[Literal['train', 'val'], int]] = [('train', num_train), ('val', num_val)]
    source = load_digits().images / 16
    cut = round(_TRAIN_RATE * len(source))
    for number, (split, num_videos) in enumerate(splits):
        rng = np.random.default_rng((seed, number))
        digits = source[:cut] if split == 'train' else source[cut:]
        regions = load_regions(split)
        (root / split).mkdir(parents=True, exist_ok=True)
        lines = []
        for i in tqdm(range(num_videos), desc=split, disable=not progress):
            direction = i % len(DIRECTIONS)
            small = Image.fromarray(digits[rng.integers(len(digits))].astype(np.float32))
            large = np.asarray(small.resize((_DIGIT_PX, _DIGIT_PX), Image.Resampling.BICUBIC))
            frames = moving_digit(
                np.clip(large, 0, 1),
                # Darker than the digit.
                0.6 * random_crop(regions, size_px=SIZE_PX, rng=rng),
                direction=direction,
                num_frames=int(rng.integers(_NUM_FRAMES[0], _NUM_FRAMES[1] + 1)),
                start=rng.integers(SIZE_PX, size=2),
            )
            write_video(root / split / f'{i:05}.avi', frames, options={'qmin': '3', 'qmax': '3'})
            lines.append(f'{i:05}.avi {direction}')
        (root / f'{split}.txt').write_text('\n'.join(lines) + '\n')


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--num-train', type=int, default=640)
    parser.add_argument('--num-val', type=int, default=160)
    args = parser.parse_args()
    make_moving_digits(args.folder, num_train=args.num_train, num_val=args.num_val)


if __name__ == '__main__':
    main()
