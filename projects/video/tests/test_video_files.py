"""Reading of videos that the test encodes: several codecs, lengths, and broken files."""

import av
import numpy as np
import pytest
from numbered_videos import CODECS, numbered_frames, numbers_in, written

from projects.video.swinv2_video.video_file import VideoFile
from swinv2_mm.errors import DataError


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
