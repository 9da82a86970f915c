"""Which frames make a clip, and how clips are cropped and packed."""

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS
from numbered_videos import numbers_in, written

import projects.video.swinv2_video  # noqa: F401
from projects.video.swinv2_video.sampling import dense_frames, middles, uniform_frames
from swinv2_mm.errors import UserError


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
        results = crops({'img': x})
        found = results['img']
        assert found.shape[1:] == (2, 3, 6, 6) and sum(results['crop_weights']) == num_crops
        places = [divmod(int(crop[0, 0, 0, 0]), x.shape[-1]) for crop in found]
        return dict(zip(places, results['crop_weights'], strict=True))

    assert corners(1, frames) == {(2, 5): 1}
    assert corners(3, frames) == {(2, 0): 1, (2, 5): 1, (2, 10): 1}
    assert corners(5, frames) == dict.fromkeys([(2, 0), (2, 2), (2, 5), (2, 7), (2, 10)], 1)
    tall = torch.arange(2 * 3 * 16 * 10).reshape(2, 3, 16, 10)
    assert corners(3, tall) == {(0, 2): 1, (5, 2): 1, (10, 2): 1}
    # Crops that are equal are cut once.
    square = torch.arange(2 * 3 * 6 * 6).reshape(2, 3, 6, 6)
    assert corners(5, square) == {(0, 0): 5}
    nearly = torch.arange(2 * 3 * 6 * 8).reshape(2, 3, 6, 8)
    assert corners(5, nearly) == {(0, 0): 2, (0, 1): 2, (0, 2): 1}
    with pytest.raises(UserError, match='16 x 10 are smaller than crops of 12'):
        TRANSFORMS.build({'type': 'SpatialCrops', 'size_px': 12})({'img': frames})
    with pytest.raises(ValueError, match='num_crops'):
        TRANSFORMS.build({'type': 'SpatialCrops', 'size_px': 12, 'num_crops': 0})


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
    assert packed['data_samples'].view_weights == [1, 1]
