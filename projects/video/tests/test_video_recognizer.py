"""The recogniser: its loss, and that testing with several views is what it is said to be."""

import math

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS

from projects.video.swinv2_video import VideoSwinV2
from projects.video.swinv2_video.moving_digits import write_video
from projects.video.swinv2_video.video_file import VideoFile

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
BACKBONE = {
    'type': 'VideoSwinV2',
    'arch': {'embed_dim': 8, 'depths': (2, 1), 'num_heads': (1, 2)},
    'window_size': 3,
    'temporal_window_size': 2,
    'out_indices': (1,),
}


def recognizer(**settings):
    torch.manual_seed(0)
    preprocessor = {'type': 'VideoPreprocessor', 'mean': MEAN, 'std': STD}
    model = MODELS.build(
        {'type': 'VideoRecognizer', 'backbone': BACKBONE, 'num_classes': 5}
        | {'data_preprocessor': preprocessor}
        | settings
    )
    oracle.randomise(model, seed=0)
    return model.eval()


@pytest.fixture
def videos(tmp_path):
    """Two videos of noise that moves, of different lengths, and their list."""
    rng = np.random.default_rng(0)
    (tmp_path / 'v').mkdir()
    for name, num_frames in (('a', 31), ('b', 17)):
        noise = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        frames = np.stack([np.roll(noise, 3 * i, axis=1) for i in range(num_frames)])
        write_video(tmp_path / 'v' / f'{name}.mp4', frames, codec='libx264', pix_fmt='yuv420p')
    (tmp_path / 'list.txt').write_text('a.mp4 4\nb.mp4 1\n')
    return tmp_path


def batch_of(root, *pipeline):
    data = DATASETS.build(
        {
            'type': 'VideoList',
            'num_classes': 5,
            'data_root': str(root),
            'ann_file': 'list.txt',
            'data_prefix': {'video': 'v'},
            'pipeline': [*pipeline, {'type': 'PackClips'}],
        }
    )
    return pseudo_collate([data[0], data[1]])


def test_four_clips_by_five_crops_are_what_they_are_said_to_be(videos):
    batch = batch_of(
        videos,
        {'type': 'LoadClips', 'clip_len': 3, 'interval': 2, 'num_clips': 4},
        {'type': 'SpatialCrops', 'size_px': 24, 'num_crops': 5},
    )
    model = recognizer()
    found = model.test_step(batch)
    assert len(found) == 2 and batch['inputs'][0].shape == (20, 3, 3, 24, 24)

    mean, std = (torch.tensor(x, dtype=torch.float32).view(3, 1, 1, 1) for x in (MEAN, STD))
    for name, num_frames, label, sample in (('a', 31, 4, found[0]), ('b', 17, 1, found[1])):
        with VideoFile(videos / 'v' / f'{name}.mp4') as file:
            frames = torch.from_numpy(file.read(range(num_frames)))
        scores = []
        for clip in range(4):
            # The middle of the clip-th quarter of the starts at which 5 frames are left.
            start = math.floor((num_frames - 4) * (2 * clip + 1) / 8)
            for y, x in ((8, 0), (8, 8), (8, 16), (8, 24), (8, 32)):
                view = frames[[start, start + 2, start + 4], y : y + 24, x : x + 24]
                view = (view.permute(3, 0, 1, 2) - mean) / std
                with torch.no_grad():
                    scores.append(model(view[None, None], mode='tensor')[0, 0].softmax(0))
        assert len({tuple(score.tolist()) for score in scores}) > 15
        expected = sum(scores) / 20
        torch.testing.assert_close(sample.pred_score, expected, rtol=0, atol=1e-5)
        assert sample.pred_label.item() == expected.argmax() and sample.gt_label.item() == label


def test_equal_crops_are_computed_once_and_count_as_often(videos):
    clips = {'type': 'LoadClips', 'clip_len': 3, 'num_clips': 2}
    cut = batch_of(videos, clips, {'type': 'SpatialCrops', 'size_px': 40, 'num_crops': 5})
    first = cut['inputs'][0]
    assert first.shape[0] == 10
    model = recognizer()
    doubled = {
        'inputs': [first, first[[0, 0, 0, 5]]],
        'data_samples': [sample.clone() for sample in cut['data_samples']],
    }
    doubled['data_samples'][1].set_field([2, 2, 1, 5], 'view_weights', field_type='metainfo')
    scores = model.test_step(doubled)
    logits = model(model.data_preprocessor(doubled)['inputs'][1:], mode='tensor')[0]
    # Five times the first view of each of the two clips: as one view each.
    expected = logits[[0, 3]].softmax(-1).mean(0)
    torch.testing.assert_close(scores[1].pred_score, expected, rtol=0, atol=1e-6)
    alone = {'inputs': [first], 'data_samples': cut['data_samples'][:1]}
    expected = model.test_step(alone)[0].pred_score
    torch.testing.assert_close(scores[0].pred_score, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('views_per_pass', [1, 3, 100])
def test_views_in_several_passes(videos, views_per_pass):
    batch = batch_of(videos, {'type': 'LoadClips', 'clip_len': 4, 'num_clips': 5})
    at_once = recognizer().test_step(batch)
    parts = recognizer(views_per_pass=views_per_pass).test_step(batch)
    for one, other in zip(at_once, parts, strict=True):
        torch.testing.assert_close(one.pred_score, other.pred_score, rtol=0, atol=1e-6)


def test_loss_is_the_mean_over_videos_and_views(videos):
    batch = batch_of(videos, {'type': 'LoadClips', 'clip_len': 4, 'num_clips': 2})
    model = recognizer()
    data = model.data_preprocessor(batch, True)
    loss = model(**data, mode='loss')['loss']
    logits = model(data['inputs'], mode='tensor')
    assert logits.shape == (2, 2, 5)
    each = [F.cross_entropy(logits[i], torch.tensor([k, k])) for i, k in enumerate((4, 1))]
    torch.testing.assert_close(loss, sum(each) / 2)
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


def test_optimizer_groups_are_those_of_the_package():
    from swinv2_mm.engine import SwinV2OptimWrapperConstructor

    model = recognizer()
    optimizer = {'type': 'AdamW', 'lr': 1.0, 'weight_decay': 0.1}
    paramwise = {'backbone_lr_mult': 0.1, 'layer_decay_rate': 0.5}
    wrapper = SwinV2OptimWrapperConstructor({'optimizer': optimizer}, paramwise)(model)
    names = {p: n for n, p in model.named_parameters()}
    groups = {names[p]: g for g in wrapper.optimizer.param_groups for p in g['params']}
    for name, group in groups.items():
        decays = name.endswith('weight') and not any(x in name for x in ('norm', 'cpb_mlp'))
        assert group['weight_decay'] == (0.1 if decays else 0.0), name
    assert groups['head.weight']['lr'] == 1.0
    assert groups['backbone.norm1.weight']['lr'] == pytest.approx(0.1)
    # Three blocks between the stem and the head.
    assert groups['backbone.patch_embed.proj.weight']['lr'] == pytest.approx(0.1 * 0.5**4)


def test_weights_start_as_those_of_the_image_model():
    model = MODELS.build({'type': 'VideoRecognizer', 'backbone': BACKBONE, 'num_classes': 40})
    model.init_weights()
    assert isinstance(model.backbone, VideoSwinV2)
    assert model.head.bias.abs().max() == 0 and 0.015 < model.head.weight.std() < 0.025
    assert model.backbone.layers[0].blocks[0].norm1.weight.abs().max() == 0
