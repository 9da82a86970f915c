"""A training that is told to go, or killed, and resumed ends as one that is not."""

import json
import os
import signal
import time

import pytest
import torch
from conftest import ROOT
from forked import fork_script, status_of
from test_hostile_input import time_limit

import swinv2_mm.models  # noqa: F401  once, for all processes
from swinv2_mm.engine.preemption import PREEMPTED_STATUS

SETTINGS = [
    'model.backbone.arch=dict(embed_dim=16,depths=(1,2,1,1),num_heads=(1,2,4,8))',
    'default_hooks.logger.interval=1',
]
ITERATIONS = {
    'classification/swinv2-nano-w8_digits.py': ['model.head.in_channels=128'],
    'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py': [
        'model.neck.in_channels=[16,32,64,128]',
        'train_dataloader.batch_size=2',
    ],
    'segmentation/upernet_swinv2-nano-w8_digits.py': [
        'model.decode_head.in_channels=[16,32,64,128]',
        'model.auxiliary_head.in_channels=64',
        'train_dataloader.batch_size=4',
    ],
}
LENGTH, SAVE_EVERY = 12, 4


def train(config, work_dir, *arguments):
    """Start a training; returns the id of its process."""
    options = [
        *SETTINGS,
        *ITERATIONS[config],
        f'train_cfg.max_iters={LENGTH}',
        f'train_cfg.val_interval={SAVE_EVERY}',
        f'default_hooks.checkpoint.interval={SAVE_EVERY}',
    ]
    return fork_script(
        ROOT / 'tools' / 'train.py', f'configs/{config}', '--work-dir', work_dir, *arguments,
        '--cfg-options', *options, output=work_dir.with_suffix('.txt'),
    )  # fmt: skip


def losses(work_dir):
    """Loss by iteration; a resumed run overwrites what the killed one repeated."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            if line.endswith('}') and 'loss' in (entry := json.loads(line)):
                found[entry['step']] = entry['loss']
    return found


def stop(pid, work_dir, number):
    """Send a signal in the second stretch between two checkpoints; returns the exit status."""
    while max(losses(work_dir), default=0) <= SAVE_EVERY:
        assert status_of(pid, is_awaited=False) is None, 'ended before it could be stopped'
        time.sleep(0.02)
    os.kill(pid, number)
    start = time.time()
    with time_limit(30):
        status = status_of(pid)
    print(f'{signal.Signals(number).name}: gone after {time.time() - start:.1f} s')
    return status


KILLED = [c for c in ITERATIONS if not c.startswith('classification')]


@pytest.mark.parametrize(
    ('config', 'number', 'status'),
    [
        ('classification/swinv2-nano-w8_digits.py', signal.SIGTERM, PREEMPTED_STATUS),
        *(pytest.param(c, signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow) for c in KILLED),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(config, number, status, use_data, tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert status_of(train(config, whole)) == 0
    assert stop(train(config, broken), broken, number) == status
    assert not (broken / f'iter_{LENGTH}.pth').exists()
    assert (broken / 'preempted.pth').exists() == (status == PREEMPTED_STATUS)
    assert status_of(train(config, broken, '--resume')) == 0

    expected, found = losses(whole), losses(broken)
    assert list(found) == list(expected) == list(range(1, LENGTH + 1))
    assert found == expected
    one, other = (
        torch.load(folder / f'iter_{LENGTH}.pth', weights_only=False)['state_dict']
        for folder in (whole, broken)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
