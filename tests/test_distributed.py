"""Two processes through the launch script, on a CPU."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from swinv2_mm.config.file import load_config

CLASSIFIER = 'configs/classification/swinv2-nano-w8_digits.py'
SMALL = [
    'model.backbone.arch=dict(embed_dim=16,depths=(1,1,1,1),num_heads=(1,2,4,8))',
    'model.head.in_channels=128',
]


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_two_processes_train(tmp_path, subprocess_environment):
    options = [
        *SMALL,
        'train_cfg.max_iters=3',
        'train_dataloader.batch_size=8',
        'default_hooks.checkpoint.interval=3',
        'default_hooks.logger.interval=1',
    ]
    port = str(free_port())
    environment = {**subprocess_environment, 'PYTHON': sys.executable, 'MASTER_PORT': port}
    done = subprocess.run(
        ['tools/dist_train.sh', CLASSIFIER, '2', '--work-dir', tmp_path, '--cfg-options', *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'GPU number: 2' in log or 'world_size: 2' in log
    assert (tmp_path / 'iter_3.pth').exists()
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert [json.loads(line)['step'] for line in scalars if 'loss' in line] == [1, 2, 3]


@pytest.mark.slow
def test_three_processes_test_as_one(tmp_path, subprocess_environment, digits_root):
    """20 images do not divide by three; two of them differ in their endings only."""
    data = tmp_path / 'data' / 'digits'
    shutil.copytree(digits_root / 'digits' / 'folders', data / 'folders')
    first, second, *_ = sorted((data / 'folders' / 'val' / 'zero').iterdir())
    Image.open(second).save(first.with_suffix('.png'))
    second.unlink()
    cfg = load_config(str(ROOT / CLASSIFIER), SMALL)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, weights := tmp_path / 'weights.pth')
    (tmp_path / 'here').mkdir()
    results = []
    for size in (1, 3):
        out = tmp_path / str(size)
        if size == 1:
            command = [sys.executable, ROOT / 'tools/test.py', ROOT / CLASSIFIER, weights]
        else:
            command = [ROOT / 'tools/dist_test.sh', ROOT / CLASSIFIER, weights, size]
        command += ['--work-dir', out / 'work', '--show-dir', out / 'drawn']
        command += ['--out', out / 'scores.json', '--out', out / 'predictions.npz']
        command += ['--cfg-options', *SMALL, 'test_dataloader.batch_size=1']
        environment = {**subprocess_environment, 'PYTHON': sys.executable}
        environment |= {'MASTER_PORT': str(free_port()), 'SWINV2_DATA': str(tmp_path / 'data')}
        environment['PYTHONPATH'] = os.pathsep.join(
            filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])
        )
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path / 'here', env=environment, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        drawn = {p.relative_to(out / 'drawn'): p.read_bytes() for p in out.rglob('drawn/**/*.png')}
        with np.load(out / 'predictions.npz') as file:
            arrays = {name: file[name].tolist() for name in file.files}
        results.append((json.loads((out / 'scores.json').read_text())['metrics'], arrays, drawn))
    assert len(results[0][2]) == len(results[0][1]['images']) == 20
    assert results[0] == results[1]
    assert not any((tmp_path / 'here').iterdir()) and not [*tmp_path.rglob('.results*')]


def test_scripts_explain_themselves():
    for script in ('dist_train', 'dist_test', 'slurm_train', 'slurm_test'):
        done = subprocess.run([f'tools/{script}.sh'], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert f'tools/{script}.sh' in done.stderr and 'CONFIG' in done.stderr
