"""Two processes through the launch script, on a CPU."""

import json
import socket
import subprocess
import sys

from conftest import ROOT


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_two_processes_train(tmp_path, subprocess_environment):
    config = 'configs/classification/swinv2-nano-w8_digits.py'
    options = [
        'model.backbone.arch=dict(embed_dim=16,depths=(1,1,1,1),num_heads=(1,2,4,8))',
        'model.head.in_channels=128',
        'train_cfg.max_iters=3',
        'train_dataloader.batch_size=8',
        'default_hooks.checkpoint.interval=3',
        'default_hooks.logger.interval=1',
    ]
    port = str(free_port())
    environment = {**subprocess_environment, 'PYTHON': sys.executable, 'MASTER_PORT': port}
    done = subprocess.run(
        ['tools/dist_train.sh', config, '2', '--work-dir', tmp_path, '--cfg-options', *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'GPU number: 2' in log or 'world_size: 2' in log
    assert (tmp_path / 'iter_3.pth').exists()
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert [json.loads(line)['step'] for line in scalars if 'loss' in line] == [1, 2, 3]


def test_scripts_explain_themselves():
    for script in ('dist_train', 'dist_test', 'slurm_train', 'slurm_test'):
        done = subprocess.run([f'tools/{script}.sh'], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert f'tools/{script}.sh' in done.stderr and 'CONFIG' in done.stderr
