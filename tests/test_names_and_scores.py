"""Scores of a detector that finds nothing, and names of files that never collide."""

import json

import pytest
from test_bad_settings import NARROW
from test_tools import DETECTOR, SHORT

import swinv2_mm.cli

DETECTOR_OPTIONS = [NARROW, 'model.neck.in_channels=[16,32,64,128]']


@pytest.fixture
def run(use_data, tmp_path):
    options = [*SHORT, *DETECTOR_OPTIONS, 'train_cfg.max_iters=1', 'train_dataloader.batch_size=1']
    options += ['default_hooks.checkpoint.interval=1', 'model.test_cfg.rcnn.score_thr=0.9999']
    options += ['train_cfg.val_interval=1', 'default_hooks.checkpoint.save_best=coco/segm_mAP']
    runner = swinv2_mm.cli.train(DETECTOR, work_dir=tmp_path / 'run', options=options)
    assert runner.message_hub.get_info('best_score') == 0
    return tmp_path / 'run'


def test_detector_that_finds_nothing_has_ap_0(run, tmp_path):
    out = tmp_path / 'scores.json'
    config = run / DETECTOR.name
    metrics = swinv2_mm.cli.test(config, run / 'iter_1.pth', out=out, work_dir=tmp_path / 'test')
    written = json.loads(out.read_text())['metrics']
    for name in ('coco/bbox_mAP', 'coco/segm_mAP', 'coco/segm_mAP_50'):
        assert metrics[name] == written[name] == 0
