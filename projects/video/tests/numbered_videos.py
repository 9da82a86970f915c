"""Videos that the tests encode, in which every frame tells its number."""

import numpy as np
from PIL import Image

from projects.digits.photographs import available_sources, source_path
from projects.video.swinv2_video.moving_digits import write_video

GRID = 8  # frame i has a white square in cell i of 8 x 8

# Container, encoder, pixel format, options: groups of 5 frames, so that seeking is needed, with
# and without frames that are coded out of order.
CODECS = {
    'mp4-mpeg4': ('mp4', 'mpeg4', 'yuv420p', {'bf': '2', 'g': '5'}),
    'avi-mpeg4-b': ('avi', 'mpeg4', 'yuv420p', {'bf': '2', 'g': '5'}),
    'avi-mjpeg': ('avi', 'mjpeg', 'yuvj420p', {}),
    'mp4-h264': ('mp4', 'libx264', 'yuv420p', {'bf': '3', 'g': '5'}),
    'mkv-h264-open': ('mkv', 'libx264', 'yuv420p', {'x264-params': 'open-gop=1:keyint=5'}),
    'mkv-h265': ('mkv', 'libx265', 'yuv420p', {'x265-params': 'keyint=5:log-level=none'}),
    'webm-vp8': ('webm', 'libvpx', 'yuv420p', {'g': '5', 'b': '1M'}),
    'webm-vp9': ('webm', 'libvpx-vp9', 'yuv420p', {'g': '5', 'b': '1M', 'cpu-used': '8'}),
    'ts-mpeg2': ('ts', 'mpeg2video', 'yuv420p', {'g': '5', 'bf': '2'}),
    'mkv-ffv1': ('mkv', 'ffv1', 'bgr0', {}),
    'mov-prores': ('mov', 'prores_ks', 'yuv422p10le', {}),
    'gif': ('gif', 'gif', 'rgb8', {}),
}  # fmt: skip


def numbered_frames(num_frames: int, *, size=(96, 128)) -> np.ndarray:
    photo = Image.open(source_path(available_sources()[0])).convert('RGB').resize(size[::-1])
    frames = np.repeat(np.asarray(photo)[None] // 3, num_frames, axis=0)
    height, width = size[0] // GRID, size[1] // GRID
    for i, frame in enumerate(frames):
        y, x = divmod(i % GRID**2, GRID)
        frame[y * height : (y + 1) * height, x * width : (x + 1) * width] = 255
    return frames


def numbers_in(frames: np.ndarray) -> list[int]:
    n, h, w, _ = frames.shape
    cells = frames.reshape(n, GRID, h // GRID, GRID, w // GRID, 3).mean((2, 4, 5))
    return cells.reshape(n, -1).argmax(1).tolist()


def written(folder, name: str, num_frames: int):
    container, codec, pix_fmt, options = CODECS[name]
    path = folder / f'{name}.{container}'
    write_video(path, numbered_frames(num_frames), codec=codec, pix_fmt=pix_fmt, options=options)
    return path
