"""Videos in and out: sound, times, rotation; detections that are followed."""

import json
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from swinv2_mm.errors import DataError
from swinv2_mm.inference.class_names import Classes
from swinv2_mm.inference.drawing import draw_prediction
from swinv2_mm.inference.prediction import Prediction
from swinv2_mm.inference.tracking import Tracker
from swinv2_mm.inference.video import VideoReader, VideoWriter
from swinv2_mm.inference.video_prediction import predict_video

TONE_HZ = 440
SAMPLES_PER_SECOND = 16_000


def picture(number, size=(48, 64)):
    """Dark but for a bright corner at the top left, and brighter with the number."""
    image = np.full((*size, 3), 20 + 8 * number, np.uint8)
    image[: size[0] // 3, : size[1] // 3] = 250
    return image


def write_clip(path, *, times, sound=None, size=(48, 64), rotation=0):
    """Write frames at times in seconds, with a tone as long as they are."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, 'yuv420p'
        # An AVI file holds its frames at one rate.
        base = Fraction(1, 10 if path.suffix == '.avi' else 1000)
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        if sound is not None:
            track = container.add_stream(sound, rate=SAMPLES_PER_SECOND)
            track.codec_context.layout = 'mono'
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format='bgr24')
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            seconds = np.arange(int(SAMPLES_PER_SECOND * (times[-1] + 0.1))) / SAMPLES_PER_SECOND
            tone = (8000 * np.sin(2 * np.pi * TONE_HZ * seconds)).astype(np.int16)
            step = SAMPLES_PER_SECOND // 10
            for start in range(0, len(tone), step):
                part = tone[None, start : start + step]
                frame = av.AudioFrame.from_ndarray(part, format='s16', layout='mono')
                frame.sample_rate, frame.pts = SAMPLES_PER_SECOND, start
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def copy(path, target):
    """Read a video and write it with its sound; returns the times of the frames."""
    reader = VideoReader(path)
    with VideoWriter(target, rate=reader.rate, sound=path) as writer:
        for frame in reader:
            writer.write(frame, time=reader.times.popleft())


def heard(path):
    """The codec, the loudest frequency and the seconds of the sound of a file."""
    with av.open(str(path)) as container:
        (track,) = container.streams.audio
        parts = [frame.to_ndarray().astype(float).mean(axis=0) for frame in container.decode(track)]
        wave = np.concatenate(parts)
        peak = np.abs(np.fft.rfft(wave)).argmax() * track.sample_rate / len(wave)
        return track.codec_context.name, peak, len(wave) / track.sample_rate


@pytest.mark.parametrize(
    ('name', 'codec', 'kept'),
    [('a.mp4', 'aac', 'aac'), ('a.mkv', 'flac', 'flac'), ('a.avi', 'pcm_s16le', 'aac')],
)
def test_sound_is_kept(name, codec, kept, tmp_path):
    path = write_clip(tmp_path / name, times=np.arange(20) / 10, sound=codec)
    copy(path, tmp_path / 'out.mp4')
    found, peak, seconds = heard(tmp_path / 'out.mp4')
    assert found == kept
    assert peak == pytest.approx(TONE_HZ, abs=5)
    assert seconds == pytest.approx(2.0, abs=0.15)
    with av.open(str(tmp_path / 'out.mp4')) as container:
        (stream,) = container.streams.video
        # What browsers play.
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
        assert stream.frames == 20 and stream.average_rate == 10


def test_without_sound_at_a_rate_that_varies(tmp_path):
    times = [0.0, 0.1, 0.2, 0.9, 1.0, 1.05]
    path = write_clip(tmp_path / 'a.mp4', times=times, size=(50, 70))
    copy(path, tmp_path / 'out.mp4')
    with av.open(str(tmp_path / 'out.mp4')) as container:
        assert not container.streams.audio
    reader = VideoReader(tmp_path / 'out.mp4')
    frames = list(reader)
    assert list(reader.times) == pytest.approx(times, abs=0.002)
    for number, frame in enumerate(frames):
        assert abs(frame.astype(int) - picture(number, (50, 70))).mean() < 4


@pytest.mark.parametrize('rotation', [90, -90, 180])
def test_turned_videos_of_phones(rotation, tmp_path):
    """Frames come upright, and what is written has no turn left to make."""
    if not hasattr(av.video.stream.VideoStream, 'set_display_rotation'):
        pytest.skip('this version of PyAV reads turned videos, but writes none')
    path = write_clip(tmp_path / 'a.mp4', times=[0.0, 0.1], rotation=rotation)
    copy(path, tmp_path / 'out.mp4')
    for file in (path, tmp_path / 'out.mp4'):
        frame = next(iter(VideoReader(file)))
        upright = np.rot90(picture(0), rotation // 90)
        assert frame.shape == upright.shape and abs(frame.astype(int) - upright).mean() < 6


def test_odd_sides_and_frames_of_another_size(tmp_path):
    with VideoWriter(tmp_path / 'a.mp4', rate=10) as writer:
        for size in ((31, 45), (31, 45), (62, 90)):
            writer.write(picture(0, size))
    assert {frame.shape for frame in VideoReader(tmp_path / 'a.mp4')} == {(32, 46, 3)}


@pytest.mark.parametrize('suffix', ['.avi', '.mkv'])
def test_a_truncated_video_is_kept_as_far_as_it_goes(suffix, tmp_path):
    """AVI counts its frames, Matroska says how long they last."""
    times = np.arange(30) / 10
    whole = write_clip(tmp_path / f'a{suffix}', times=times, sound='pcm_s16le')
    assert len(list(VideoReader(whole))) == 30
    cut = tmp_path / f'cut{suffix}'
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match='truncated'):
        copy(cut, tmp_path / 'out.mp4')
    # What could be read is kept, with its sound.
    assert 2 < len(list(VideoReader(tmp_path / 'out.mp4'))) < 30
    assert heard(tmp_path / 'out.mp4')[1] == pytest.approx(TONE_HZ, abs=5)


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / 'text.mp4').write_text('no video')
    for name in ('text.mp4', 'nowhere.mp4'):
        with pytest.raises(DataError, match=name):
            VideoReader(tmp_path / name)


CLASSES = Classes(('car', 'dog'), ((255, 0, 0), (0, 255, 0)))


def prediction_of(boxes, *, scores, labels, image=None):
    found = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    image = np.zeros((480, 640, 3), np.uint8) if image is None else image
    sample = SimpleNamespace(pred_instances=found)
    return Prediction(None, image, sample, 'detection', CLASSES)


def moving(frame):
    """Two cars that pass each other and a dog on a car, in an order that changes."""
    cars = [[20 + 8 * frame, 50, 80 + 8 * frame, 90], [400 - 8 * frame, 200, 460 - 8 * frame, 240]]
    boxes = [*cars, [25 + 8 * frame, 52, 78 + 8 * frame, 88], [0, 300, 9, 309]]
    order = [0, 1, 2, 3] if frame % 2 else [2, 3, 1, 0]
    rows = [boxes[k] for k in order]
    scores = [(0.9, 0.8, 0.7, 0.06)[k] for k in order]
    return prediction_of(rows, scores=scores, labels=[(0, 0, 1, 0)[k] for k in order]), order


def test_detections_are_followed():
    pytest.importorskip('trackers')
    tracker = Tracker(rate=25.0, score_threshold=0.3)
    tracks = []
    for frame in range(12):
        prediction, order = moving(frame)
        tracker.update(prediction)
        ids = dict(zip(order, prediction.sample.pred_instances.track_ids.tolist(), strict=True))
        tracks.append([ids[number] for number in range(4)])
    # From the second frame on each object has one of its own, noise has none.
    assert len({tuple(row) for row in tracks[1:]}) == 1
    car, other, dog, noise = tracks[-1]
    assert sorted((car, other, dog)) == [1, 2, 3] and noise == -1
    records = json.loads(json.dumps(prediction.to_dict()))['detections']
    assert [r.get('track_id') for r in records] == [car, other, dog, None]
    drawn = draw_prediction(prediction)
    prediction.sample.pred_instances.pop('track_ids')
    assert (drawn != draw_prediction(prediction)).any()
    # Nothing found, then found again.
    for _ in range(3):
        tracker.update(prediction_of([], scores=[], labels=[]))
    prediction, order = moving(15)
    tracker.update(prediction)
    assert prediction.sample.pred_instances.track_ids[order.index(0)] == car


def test_a_line_per_frame(tmp_path):
    """Frames, times and track ids go together whatever the batches."""
    pytest.importorskip('trackers')
    path = write_clip(tmp_path / 'a.mp4', times=[0.0, 0.1, 0.5, 0.6], sound='aac')

    def inferencer(frames, *, batch_size):
        assert batch_size == 3
        for frame in frames:
            box = [[10, 10, 30 + float(frame[40, 60, 0]) / 100, 30]]
            yield prediction_of(box, scores=[0.9], labels=[1], image=frame)

    count = predict_video(
        inferencer, VideoReader(path), lines=tmp_path / 'out' / 'a.jsonl',
        drawn=tmp_path / 'out' / 'a.mp4', draw=draw_prediction, batch_size=3, track_from=0.3,
    )  # fmt: skip
    assert count == 4 and heard(tmp_path / 'out' / 'a.mp4')[0] == 'aac'
    lines = [json.loads(line) for line in (tmp_path / 'out' / 'a.jsonl').open()]
    assert [line['frame'] for line in lines] == [0, 1, 2, 3]
    assert [line['time'] for line in lines] == [0.0, 0.1, 0.5, 0.6]
    assert [line['detections'][0].get('track_id') for line in lines] == [None, 1, 1, 1]
    # Small frames are enlarged to be drawn on.
    assert next(iter(VideoReader(tmp_path / 'out' / 'a.mp4'))).shape == (480, 640, 3)
