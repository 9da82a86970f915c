"""Several views, and files for servers, with the recipes' other kinds of models, shrunk."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from shrinking import as_text, shrink
from tiny_data import write_data

import swinv2_mm.models  # noqa: F401

CONFIGS = ROOT / 'configs'
VIEWS = ['tta.scales=[1.0,1.5]', 'tta.flips=[none,horizontal]']


@pytest.fixture
def run(tool, tmp_path, monkeypatch):
    """Test a shrunk recipe with random weights; returns status, errors and predictions."""

    def test(leaf, *arguments):
        monkeypatch.setenv('SWINV2_DATA', str(tmp_path / 'data'))
        tree = shrink(Config.fromfile(CONFIGS / leaf))
        write_data(tree)
        path = tmp_path / 'recipe.py'
        path.write_text(as_text(tree))
        cfg = Config.fromfile(path)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = MODELS.build(cfg.model)
        torch.save({'state_dict': model.state_dict()}, tmp_path / 'random.pth')
        status, errors = tool(
            'test', path, tmp_path / 'random.pth', '--work-dir', tmp_path / 'work',
            '--out', tmp_path / 'out.npz', *arguments,
        )  # fmt: skip
        if status:
            return status, errors, None
        with np.load(tmp_path / 'out.npz', allow_pickle=False) as file:
            return status, errors, dict(file)

    return test


@pytest.mark.parametrize(
    ('leaf', 'with_masks'),
    [
        ('detection/dino-4scale_swinv2-t-w16_8xb2-12e_coco.py', False),
        ('detection/mask2former_swinv2-t-w16_8xb2-lsj-50e_coco.py', True),
        ('detection/htc++_swinv2-nano-w12_facade.py', True),
        ('detection/htc++-box_swinv2-nano-w12_facade.py', False),
    ],
)
def test_detectors(leaf, with_masks, run):
    status, errors, found = run(CONFIGS / leaf, '--tta', '--cfg-options', *VIEWS)
    assert status == 0, errors
    assert len(found['scores']) > 0 and np.isfinite(found['boxes']).all()
    assert ('mask_bytes' in found) == with_masks


PANOPTIC = 'detection/mask2former_swinv2-t-w16_8xb2-lsj-50e_coco-panoptic.py'


def test_panoptic_views_cannot_be_merged(run):
    status, errors, _ = run(PANOPTIC, '--tta', '--cfg-options', *VIEWS)
    line = errors.strip().splitlines()[-1]
    assert status == 1 and line.startswith('error: ') and 'cannot be merged' in line


def test_panoptic_submission(run, tmp_path):
    mirrored = ['tta.scales=1.0', 'tta.flips=horizontal']
    status, errors, found = run(PANOPTIC, '--format-only', '--tta', '--cfg-options', *mirrored)
    assert status == 0, errors
    folder = tmp_path / 'work' / 'submission'
    answers = json.loads((folder / 'predictions.panoptic.json').read_text())['annotations']
    pictures = {p.name for p in (folder / 'predictions.panoptic').iterdir()}
    assert len(answers) == len(found['images']) and {a['file_name'] for a in answers} == pictures
    assert found['panoptic_map_0'].ndim == 2
