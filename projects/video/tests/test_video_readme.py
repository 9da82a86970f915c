"""The commands of the README as they are, and what they reach: the project's acceptance."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS

from swinv2_mm.config.file import load_config
from swinv2_mm.engine.trained_model import load_trained_model

README = ROOT / 'projects/video/README.md'
PARTS = ('configs', 'projects', 'swinv2_mm', 'tools')
CHANCE = 100 / 8


def blocks(language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', README.read_text(), re.M | re.S)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder like the repository in which all commands have run, and the seconds of each."""
    root = tmp_path_factory.mktemp('place')
    for part in PARTS:
        (root / part).symlink_to(ROOT / part)
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'SWINV2_DATA': str(root / 'data'),
        'OMP_NUM_THREADS': '1',
        'MASTER_PORT': '29617',
    }
    for block in blocks('shell'):
        start = time.perf_counter()
        done = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', block],
            cwd=root, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f'{block}\n{done.stderr[-3000:]}'
        print(f'{time.perf_counter() - start:.0f} s: {block}')
    return root


def validations(work_dir: Path) -> list[float]:
    scalars = min(work_dir.glob('*/vis_data/scalars.json'))  # of the training, not of a test
    records = map(json.loads, scalars.read_text().splitlines())
    return [r['accuracy/top1'] for r in records if 'accuracy/top1' in r]


def test_python_of_the_readme():
    for block in blocks('python'):
        exec(block, {})


@pytest.mark.slow
def test_eight_directions_are_told_apart(place):
    top1 = {
        name: json.loads((place / f'{name}.json').read_text())['metrics']['accuracy/top1']
        for name in ('scores', 'scores-w12')
    }
    print(top1, 'validations', validations(place / f'work_dirs/{config_name()}'))
    assert top1['scores'] >= 95
    assert top1['scores-w12'] >= 90


@pytest.mark.slow
def test_a_single_frame_is_no_better_than_chance(place):
    scores = validations(place / 'work_dirs/one-frame')
    print('one frame:', scores)
    # 160 videos: 2.6 % standard deviation.
    assert len(scores) == 6 and all(abs(score - CHANCE) < 11 for score in scores)


@pytest.mark.slow
def test_it_is_the_order_of_the_frames_that_tells(place, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(place / 'data'))
    cfg = load_config(str(ROOT / 'projects/video/configs' / f'{config_name()}.py'))
    weights = place / 'work_dirs' / config_name() / 'epoch_12.pth'
    model, _ = load_trained_model(cfg, weights, device='cpu')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = pseudo_collate([dataset[i] for i in range(len(dataset))])
    labels = torch.cat([sample.gt_label for sample in batch['data_samples']])

    @torch.no_grad()
    def rate(frames, expected) -> float:
        inputs = [clip[:, :, frames] for clip in batch['inputs']]
        samples = model.test_step({'inputs': inputs, 'data_samples': batch['data_samples']})
        found = torch.cat([sample.pred_label for sample in samples])
        return 100 * (found == expected).float().mean().item()

    backwards = rate([7, 6, 5, 4, 3, 2, 1, 0], (labels + 4) % 8)
    still = max(rate([i] * 8, labels) for i in range(8))
    print(f'played backwards, the opposite: {backwards:.1f} %; best single frame: {still:.1f} %')
    assert backwards >= 95
    assert still < CHANCE + 11


def config_name() -> str:
    return re.search(r'configs/(\S+moving-digits)\.py', README.read_text())[1]
