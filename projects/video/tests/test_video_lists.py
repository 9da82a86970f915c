"""Data sets of listed videos, broken ones among them."""

import pytest
import torch
from mmengine.registry import DATASETS
from numbered_videos import written

import projects.video.swinv2_video  # noqa: F401
from swinv2_mm.engine.seeding import Draw
from swinv2_mm.errors import DataError


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
