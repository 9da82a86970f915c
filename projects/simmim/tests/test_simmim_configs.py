"""Every recipe says what it is, builds, and runs a step, shrunk."""

import json
import math
import re

import pytest
from conftest import ROOT
from mmengine.config import Config
from shrinking import IMAGE_PX, as_text, shrink
from tiny_data import write_data

from swinv2_mm.config.file import load_config
from swinv2_mm.core.architectures import resolve_architecture

CONFIGS = ROOT / 'projects/simmim/configs'
LEAVES = sorted(path.name for path in CONFIGS.glob('*.py'))
# What shrinking does not fit: the windows of V1 are tied to its image.
SWIN_V1 = 'simmim_swinv1-deep-w6_flowers-facade-96.py'


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_is_short_and_says_what_it_is(leaf):
    lines = (CONFIGS / leaf).read_text().splitlines()
    assert len(lines) <= 25
    header = [line for line in lines if line.startswith('#')]
    for word in ('Trains:', 'Command:', 'Hardware:', 'Score:', 'Source:'):
        assert any(line.startswith(f'# {word}') for line in header), f'no "{word}" in the header'
    assert any(f'projects/simmim/configs/{leaf}' in line for line in header)


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_is_consistent(leaf):
    cfg = load_config(str(CONFIGS / leaf))
    if batch := re.search(r'_(\d+)xb(\d+)[_-]', leaf):
        gpus, images = map(int, batch.groups())
        assert cfg.train_dataloader.batch_size == images
        assert cfg.auto_scale_lr.base_batch_size == gpus * images
    if cfg.model.type == 'MaskedImageModel':
        assert resolve_architecture(cfg.model.backbone.arch).dims[-1] == cfg.model.neck.in_channels


def test_recipe_of_base_is_the_official_one():
    cfg = load_config(str(CONFIGS / 'simmim_swinv2-b-w12_16xb128-800e_in1k-192.py'))
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    mask, crop = steps['RandomBlockMask'], steps['RandomResizedCrop']
    assert (mask.input_size, mask.mask_patch_size, mask.mask_ratio) == (192, 32, 0.6)
    assert crop.scale == 192 and tuple(crop.crop_ratio_range) == (0.67, 1.0)
    assert tuple(crop.aspect_ratio_range) == pytest.approx((3 / 4, 4 / 3))
    assert tuple(cfg.model.backbone.window_size) == (12, 12, 12, 6)
    assert cfg.model.head.target_window_px == 47 and cfg.model.neck.encoder_stride == 32
    assert cfg.train_cfg.max_epochs == 800 and cfg.optim_wrapper.optimizer.lr == 1e-4 * 2048 / 512


@pytest.mark.slow
@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf != SWIN_V1])
def test_leaf_builds_trains_and_tests(leaf, tool, tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(tmp_path / 'data'))
    tree = shrink(Config.fromfile(CONFIGS / leaf))
    for loader in ('train_dataloader', 'test_dataloader'):
        fit_masks(tree[loader]['dataset'])
    write_data(tree)
    (tmp_path / leaf).write_text(as_text(tree))
    status, errors = tool('train', tmp_path / leaf, '--work-dir', tmp_path / 'train')
    assert status == 0, errors
    (scalars,) = (tmp_path / 'train').glob('*/vis_data/scalars.json')
    losses = [json.loads(line).get('loss') for line in scalars.read_text().splitlines()]
    assert all(loss is None or 0 < loss < math.inf for loss in losses) and any(losses)
    checkpoint = (tmp_path / 'train' / 'last_checkpoint').read_text().strip()
    out = tmp_path / 'scores.json'
    status, errors = tool(
        'test', tmp_path / leaf, checkpoint, '--work-dir', tmp_path / 'test', '--out', out
    )
    assert status == 0, errors
    expected = 'masked_l1' if tree['model']['type'] == 'MaskedImageModel' else 'accuracy/top1'
    assert math.isfinite(json.loads(out.read_text())['metrics'][expected])


def fit_masks(dataset):
    """Give images that are masked a size which is a multiple of the blocks."""
    for inner in dataset.get('datasets', [dataset]):
        if any(step['type'] == 'RandomBlockMask' for step in inner['pipeline']):
            for step in inner['pipeline']:
                sizes = {'scale', 'crop_size', 'input_size'} & set(step)
                step |= dict.fromkeys(sizes, IMAGE_PX)
