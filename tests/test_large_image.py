"""An image of 20,000 x 20,000 pixels, in tiles, in bounded memory (slow)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.registry import MODELS, DefaultScope

import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.file import load_config

CONFIGS = {
    'segmentation': 'upernet_swinv2-nano-w8_facade.py',
    'detection': 'cascade-mask-rcnn_swinv2-nano-w12_facade.py',
}
# For an image that needs 1.2 GB in memory: what a run may take beyond one over a small image.
EXTRA_MB = {'segmentation': 600, 'detection': 700}


def write_mosaic(path, photographs, *, side, cell=1000):
    """Write a GeoTIFF of photographs, each enlarged to a cell; a row of them at a time."""
    rasterio = pytest.importorskip('rasterio')
    with rasterio.open(
        path, 'w', driver='GTiff', width=side, height=side, count=3, dtype='uint8', tiled=True,
        blockxsize=512, blockysize=512, compress='jpeg', photometric='ycbcr', interleave='pixel',
        crs='EPSG:2056', transform=rasterio.Affine(0.1, 0, 2_600_000, 0, -0.1, 1_200_000),
    ) as file:  # fmt: skip
        number = 0
        for top in range(0, side, cell):
            for left in range(0, side, cell):
                image = cv2.imread(str(photographs[number % len(photographs)]))
                number += 1
                size = min(cell, side - left), min(cell, side - top)
                image = cv2.resize(image, (cell, cell))[: size[1], : size[0], ::-1]
                window = rasterio.windows.Window(left, top, *size)
                file.write(np.ascontiguousarray(image.transpose(2, 0, 1)), window=window)


@pytest.mark.slow
@pytest.mark.parametrize('task', CONFIGS)
def test_memory_is_bounded(task, tmp_path):
    data = Path(os.environ.get('SWINV2_DATA', ROOT.parent / 'shared' / 'data')) / 'facade'
    photographs = sorted((data / 'images').rglob('*.jpg'))
    if not photographs:
        pytest.skip('no photographs of facade')
    config = ROOT / 'configs' / task / CONFIGS[task]
    cfg = load_config(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')

    def run(side):
        write_mosaic(tmp_path / f'{side}.tif', photographs, side=side)
        out = tmp_path / f'out-{side}'
        command = [
            sys.executable, 'tools/infer.py', tmp_path / f'{side}.tif', '--config', config,
            '--weights', tmp_path / 'weights.pth', '--device', 'cpu', '--out', out,
            '--tile', '1024', '--overlap', '128',
        ]  # fmt: skip
        done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        print(done.stdout.splitlines()[-1])
        (record,) = map(json.loads, (out / 'predictions.jsonl').open())
        assert (record['width'], record['height']) == (side, side)
        return out, record, float(re.search(r'memory at most (\d+) MB', done.stdout)[1])

    _, _, small_mb = run(2000)
    out, record, large_mb = run(20_000)
    assert large_mb < small_mb + EXTRA_MB[task]
    picture = cv2.imread(str(out / 'pictures' / '20000.jpg'))
    assert picture.shape == (4000, 4000, 3)
    if task == 'segmentation':
        rasterio = pytest.importorskip('rasterio')
        with rasterio.open(out / 'label_maps' / '20000.tif') as file:
            assert file.shape == (20_000, 20_000) and file.crs == 'EPSG:2056'
        assert sum(record['shares'].values()) == pytest.approx(1, abs=1e-3)
    else:
        assert len(record['detections']) > 529
        sizes = {tuple(found['segmentation']['size']) for found in record['detections']}
        assert sizes == {(20_000, 20_000)}
