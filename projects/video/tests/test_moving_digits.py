"""The data set of moving digits: only time tells the class."""

import numpy as np

from projects.digits.photographs import load_regions, random_crop
from projects.video.swinv2_video.moving_digits import (
    CLASSES,
    DIRECTIONS,
    SIZE_PX,
    make_moving_digits,
    moving_digit,
)
from projects.video.swinv2_video.video_file import VideoFile


def test_a_frame_of_a_moving_digit_does_not_tell_the_direction():
    digit = np.random.default_rng(0).random((5, 5))
    background = random_crop(load_regions('train'), size_px=SIZE_PX, rng=np.random.default_rng(0))
    starts = [np.array([y, x]) for y in range(SIZE_PX) for x in range(SIZE_PX)]

    def frames_at(direction, time):
        drawn = (
            moving_digit(
                digit, background[..., :1], direction=direction, num_frames=time + 1, start=s
            )
            for s in starts
        )
        return {frames[time].tobytes() for frames in drawn}

    # Over all starts, the sets of pictures at a time are the same.
    assert frames_at(1, 2) == frames_at(4, 2) and len(frames_at(1, 2)) == SIZE_PX**2


def test_moving_digits(tmp_path):
    make_moving_digits(tmp_path, num_train=16, num_val=8, progress=False)
    lines = (tmp_path / 'train.txt').read_text().splitlines()
    assert [int(line.split()[1]) for line in lines] == [*range(8), *range(8)]
    assert len(CLASSES) == len(set(DIRECTIONS)) == 8
    for line in lines:
        with VideoFile(tmp_path / 'train' / line.split()[0]) as video:
            frames = video.read(range(video.num_frames)).astype(float)
        assert 10 <= len(frames) <= 14 and frames.shape[1:] == (SIZE_PX, SIZE_PX, 3)
        # What moves, moves in the direction of the class.
        moving = (frames - np.median(frames, axis=0)).mean(-1).clip(0)
        spectra = np.fft.fft2(moving)
        shift = np.fft.ifft2((spectra[1:] * spectra[:-1].conj()).sum(0)).real
        dy, dx = np.unravel_index(shift.argmax(), shift.shape)
        wrapped = tuple(int(d) - SIZE_PX * (d > SIZE_PX // 2) for d in (dx, dy))
        assert wrapped == DIRECTIONS[int(line.split()[1])]
