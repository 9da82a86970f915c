"""Reading of videos that the test encodes: several codecs, lengths, and broken files."""

import av
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image

import projects.video.swinv2_video  # noqa: F401
from projects.video.swinv2_video.moving_digits import (
    CLASSES,
    DIRECTIONS,
    SIZE_PX,
    make_moving_digits,
    moving_digit,
    write_video,
)
from projects.video.swinv2_video.sampling import dense_frames, middles, uniform_frames
from projects.video.swinv2_video.video_file import VideoFile
from swinv2_mm.datasets.photographs import available_sources, load_regions, random_crop, source_path
from swinv2_mm.engine.seeding import Draw
from swinv2_mm.errors import DataError, UserError

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


@pytest.mark.parametrize('num_frames', [1, 13, 32])
@pytest.mark.parametrize('name', CODECS)
def test_frames_are_found_by_number(name, num_frames, tmp_path):
    path = written(tmp_path, name, num_frames)
    with VideoFile(path) as video:
        assert video.num_frames == num_frames
        everything = video.read(range(num_frames))
    assert everything.shape == (num_frames, 96, 128, 3)
    assert numbers_in(everything) == list(range(num_frames))
    rng = np.random.default_rng(0)
    for _ in range(4):
        numbers = rng.integers(num_frames, size=3)
        with VideoFile(path) as video:
            assert np.array_equal(video.read(numbers), everything[numbers])


def test_pixels_survive_a_lossless_codec(tmp_path):
    path = written(tmp_path, 'mkv-ffv1', 5)
    with VideoFile(path) as video:
        assert np.array_equal(video.read([3, 0]), numbered_frames(5)[[3, 0]])


def test_reading_starts_at_a_key_frame(tmp_path, monkeypatch):
    path = written(tmp_path, 'mp4-h264', 60)
    with VideoFile(path) as video:
        monkeypatch.setattr(video, '_from_start', lambda first: pytest.fail('read from the start'))
        decoded = []
        plain = video._decoded
        monkeypatch.setattr(video, '_decoded', lambda: (decoded.append(f) or f for f in plain()))
        assert numbers_in(video.read([58])) == [58]
    assert len(decoded) < 10


@pytest.mark.parametrize('name', ['mp4-h264', 'webm-vp9', 'avi-mjpeg', 'ts-mpeg2'])
def test_truncated_files(name, tmp_path):
    path = written(tmp_path, name, 40)
    content = path.read_bytes()
    for share in (0.01, 0.5, 0.97):
        path.write_bytes(content[: int(share * len(content))])
        # Either what is there is all right, or it is said what is wrong.
        try:
            with VideoFile(path) as video:
                # The last frame may be half there, and those that refer to it.
                numbers = list(range(min(video.num_frames - 3, 39)))
                assert numbers_in(video.read(numbers)) == numbers
        except DataError as error:
            assert str(path) in str(error) and '\n' not in str(error)


def test_a_broken_frame_is_named_and_the_others_are_read(tmp_path):
    path = written(tmp_path, 'avi-mjpeg', 20)
    content = path.read_bytes()
    pictures = [i for i in range(len(content)) if content[i : i + 3] == b'\xff\xd8\xff']
    assert len(pictures) == 20
    start, stop = pictures[7], pictures[8] - 8  # what follows is the header of the next
    path.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
    with VideoFile(path) as video:
        assert numbers_in(video.read([6, 8, 19])) == [6, 8, 19]
        with pytest.raises(
            DataError, match='is broken or truncated: frame 7 of 20 cannot be decoded'
        ):
            video.read([6, 7, 8])


@pytest.mark.parametrize('content', [b'', b'no video', b'#EXTM3U\n#EXTINF:1,\nother.ts\n'])
def test_no_videos(content, tmp_path):
    path = tmp_path / 'clip.mp4'
    path.write_bytes(content)
    with pytest.raises(DataError, match=r'clip\.mp4 (cannot be read|holds no frames)'):
        VideoFile(path)
    with pytest.raises(DataError, match='does not exist'):
        VideoFile(tmp_path / 'missing.mp4')


def test_sound_is_no_video(tmp_path):
    path = tmp_path / 'sound.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match='not a video'):
        VideoFile(path)


# --- sampling -----------------------------------------------------------------------------------


def test_dense_clips():
    def take(num_frames, positions, interval=2):
        positions = np.array(positions)
        return dense_frames(num_frames, clip_len=4, interval=interval, positions=positions).tolist()

    # Starts 0 to 4 are possible: the first, the middle, the last.
    assert take(11, [0.0, 0.5, 0.999]) == [[0, 2, 4, 6], [2, 4, 6, 8], [4, 6, 8, 10]]
    assert take(7, [0.999]) == [[0, 2, 4, 6]]
    assert take(5, [0.5]) == [[0, 2, 4, 1]]
    assert take(1, [0.5]) == [[0, 0, 0, 0]]


def test_uniform_clips():
    assert uniform_frames(16, positions=np.full((1, 4), 0.5)).tolist() == [[2, 6, 10, 14]]
    two = np.broadcast_to(middles(2)[:, None], (2, 4))
    assert uniform_frames(16, positions=two).tolist() == [[1, 5, 9, 13], [3, 7, 11, 15]]
    assert uniform_frames(3, positions=np.full((1, 6), 0.5)).tolist() == [[0, 0, 1, 1, 2, 2]]
    # A frame of each segment, whatever is drawn, and each of its frames.
    drawn = uniform_frames(17, positions=np.random.default_rng(0).random((500, 4)))
    for segment, frames in enumerate(drawn.T):
        start, stop = segment * 17 / 4, (segment + 1) * 17 / 4
        assert set(frames) == set(range(int(start), int(np.ceil(stop - 1e-9))))


@pytest.mark.parametrize('sampling', ['dense', 'uniform'])
def test_clips_of_a_file(sampling, tmp_path):
    path = str(written(tmp_path, 'mp4-mpeg4', 33))
    settings = {'type': 'LoadClips', 'clip_len': 5, 'sampling': sampling, 'interval': 3}
    load = TRANSFORMS.build(settings | {'num_clips': 4})
    results = load({'video_path': path})
    assert results['img'].shape == (20, 3, 96, 128) and results['img'].dtype == torch.uint8
    assert numbers_in(results['img'].permute(0, 2, 3, 1).numpy()) == (
        load.frame_numbers(33).flatten().tolist()
    )
    if sampling == 'dense':  # 21 starts, four parts of 5.25
        assert load.frame_numbers(33)[:, 0].tolist() == [2, 7, 13, 18]
    drawing = TRANSFORMS.build(settings | {'is_random': True})
    assert len({drawing.frame_numbers(33).tobytes() for _ in range(20)}) > 5


@pytest.mark.parametrize('change', [{'sampling': 'random'}, {'clip_len': 0}, {'num_clips': 0}])
def test_settings_of_clips_that_do_not_fit(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TRANSFORMS.build({'type': 'LoadClips', 'clip_len': 8} | change)


def test_crops():
    frames = torch.arange(2 * 3 * 10 * 16).reshape(2, 3, 10, 16)

    def corners(num_crops, x):
        crops = TRANSFORMS.build({'type': 'SpatialCrops', 'size_px': 6, 'num_crops': num_crops})
        found = crops({'img': x})['img']
        assert found.shape == (num_crops, 2, 3, 6, 6)
        return [divmod(int(crop[0, 0, 0, 0]), x.shape[-1]) for crop in found]

    assert corners(1, frames) == [(2, 5)]
    assert corners(3, frames) == [(2, 5), (2, 0), (2, 10)]
    assert corners(5, frames) == [(2, 5), (0, 0), (0, 10), (4, 0), (4, 10)]
    tall = torch.arange(2 * 3 * 16 * 10).reshape(2, 3, 16, 10)
    assert corners(3, tall) == [(5, 2), (0, 2), (10, 2)]
    with pytest.raises(UserError, match='16 x 10 are smaller than crops of 12'):
        TRANSFORMS.build({'type': 'SpatialCrops', 'size_px': 12})({'img': frames})
    with pytest.raises(ValueError, match='1, 3 or 5'):
        TRANSFORMS.build({'type': 'SpatialCrops', 'size_px': 12, 'num_crops': 4})


def test_views_are_packed_clip_by_clip():
    # Pixels say crop, clip and frame.
    crop, clip, frame = torch.meshgrid(
        torch.arange(3), torch.arange(2), torch.arange(4), indexing='ij'
    )
    img = (100 * crop + 10 * clip + frame).reshape(3, 8, 1, 1, 1).expand(-1, -1, 3, 2, 2)
    pack = TRANSFORMS.build({'type': 'PackClips'})
    packed = pack(
        {'img': img, 'num_clips': 2, 'video_path': 'v', 'ori_shape': (2, 2), 'gt_label': 3}
    )
    assert packed['inputs'].shape == (6, 3, 4, 2, 2)
    assert packed['inputs'][:, 0, 0, 0, 0].tolist() == [0, 100, 200, 10, 110, 210]
    assert packed['inputs'][4, 2, :, 1, 1].tolist() == [110, 111, 112, 113]
    assert packed['data_samples'].gt_label.tolist() == [3]


# --- lists --------------------------------------------------------------------------------------


def video_list(root, lines: str, **settings):
    (root / 'list.txt').write_text(lines)
    pipeline = [
        {'type': 'SeedAugmentation'},
        {'type': 'LoadClips', 'clip_len': 2, 'is_random': True},
        {'type': 'PackClips'},
    ]
    defaults = {'type': 'VideoList', 'num_classes': 4, 'data_prefix': {'video': 'v'}}
    defaults |= {'data_root': str(root), 'ann_file': 'list.txt', 'pipeline': pipeline}
    return DATASETS.build(defaults | settings)


def test_list_of_videos(tmp_path):
    (tmp_path / 'v').mkdir()
    written(tmp_path / 'v', 'mp4-h264', 9).rename(tmp_path / 'v' / 'a b.mp4')
    data = video_list(tmp_path, 'a b.mp4 3\n\na b.mp4  0\n')
    assert [data.get_data_info(i)['gt_label'] for i in range(len(data))] == [3, 0]
    assert data[0]['inputs'].shape == (1, 3, 2, 96, 128)
    # What is drawn depends on the seed of the sample only.
    draws = [data[Draw(1, (7, position))]['inputs'] for position in (0, 1, 2, 3, 4, 0)]
    assert torch.equal(draws[0], draws[5])
    assert any(not torch.equal(draws[0], other) for other in draws[1:5])


@pytest.mark.parametrize('line', ['a.mp4', 'a.mp4 x', 'a.mp4 4', 'a.mp4 -1', '3'])
def test_line_that_does_not_fit(line, tmp_path):
    with pytest.raises(
        DataError, match=r'list\.txt, line 2: expected a path and a class from 0 to 3'
    ):
        video_list(tmp_path, f'b.mp4 0\n{line}\n')
    with pytest.raises(DataError, match='is empty'):
        video_list(tmp_path, '\n')


def test_broken_videos_of_a_list(tmp_path):
    (tmp_path / 'v').mkdir()
    written(tmp_path / 'v', 'mp4-mpeg4', 4)
    (tmp_path / 'v' / 'broken.mp4').write_bytes(b'broken')
    lines = 'broken.mp4 1\nmissing.mp4 1\nmp4-mpeg4.mp4 2\n'
    with pytest.raises(DataError, match=r'broken\.mp4 cannot be read'):
        video_list(tmp_path, lines)[0]
    data = video_list(tmp_path, lines, skip_broken=True)
    assert [int(data[i]['data_samples'].gt_label) for i in range(3)] == [2, 2, 2]
    assert data.num_skipped == 3
    # A test has to say so.
    with pytest.raises(DataError, match=r'missing\.mp4 does not exist'):
        video_list(tmp_path, lines, skip_broken=True, test_mode=True)[1]
    with pytest.raises(DataError, match='none of the videos'):
        video_list(tmp_path, 'broken.mp4 1\n', skip_broken=True)[0]


# --- moving digits ------------------------------------------------------------------------------


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
