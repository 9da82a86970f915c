"""Checkpoints survive whatever happens while the next one is written."""

import logging
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import runner as mmengine_runner
from test_runner import SMALL
from test_tools import CLASSIFIER, only_line

from swinv2_mm.engine import SafeCheckpointHook

STEPS = ['train_cfg.max_iters=6', 'default_hooks.checkpoint.interval=2']


@pytest.fixture
def run(tool, use_data, tmp_path):
    def train(*arguments, options=()):
        chosen = [o for o in SMALL if not o.startswith(('train_cfg.', 'default_hooks.'))]
        return tool(
            'train', CLASSIFIER, '--work-dir', tmp_path, *arguments,
            '--cfg-options', *chosen, *STEPS, *options,
        )  # fmt: skip

    return train


def checkpoints(folder):
    return sorted(path.name for path in folder.iterdir() if '.pth' in path.name)


def failing_at(number, monkeypatch, write=b'half'):
    """Have the disk be full while the given checkpoint is written."""
    real, calls = mmengine_runner.save_checkpoint, []

    def save(checkpoint, path, **settings):
        calls.append(path)
        if len(calls) < number:
            return real(checkpoint, path, **settings)
        with open(path, 'wb') as file:
            file.write(write)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(mmengine_runner, 'save_checkpoint', save)


def test_a_full_disk_leaves_the_checkpoint_before(run, tmp_path, monkeypatch):
    keep = ['default_hooks.checkpoint.max_keep_ckpts=1']
    with monkeypatch.context() as patch:
        failing_at(2, patch)
        status, errors = run(options=keep)
    line = only_line(errors)
    assert status == 1 and 'iter_4.pth cannot be written: No space left' in line
    assert checkpoints(tmp_path) == ['iter_2.pth']
    status, errors = run('--resume', options=keep)
    assert status == 0, errors
    # And the older one goes when the newer one is there.
    assert checkpoints(tmp_path) == ['iter_6.pth']


def test_resuming_passes_over_what_cannot_be_read(run, tmp_path):
    assert run()[0] == 0
    whole = torch.load(tmp_path / 'iter_6.pth', weights_only=False)['state_dict']
    content = (tmp_path / 'iter_6.pth').read_bytes()
    (tmp_path / 'iter_6.pth').write_bytes(content[: len(content) // 2])
    status, errors = run('--resume')
    assert status == 0, errors
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'Not resumed from iter_6.pth' in log and 'iter_4.pth' in log
    again = torch.load(tmp_path / 'iter_6.pth', weights_only=False)['state_dict']
    assert all(torch.equal(whole[name], value) for name, value in again.items())


def test_resuming_from_nothing_starts_anew(run, tmp_path):
    status, errors = run('--resume')
    assert status == 0, errors
    assert 'training starts anew' in next(tmp_path.glob('*/*.log')).read_text()
    assert checkpoints(tmp_path) == ['iter_4.pth', 'iter_6.pth']


def test_the_best_goes_when_a_better_one_is_there(tmp_path):
    def save(folder, filename, **settings):
        if is_full:
            raise OSError(28, os.strerror(28))
        (tmp_path / filename).touch()

    runner = SimpleNamespace(
        work_dir=str(tmp_path), message_hub=MessageHub.get_instance(str(tmp_path)), epoch=0, iter=1,
        logger=logging.getLogger(), train_loop=None, optim_wrapper=None, save_checkpoint=save,
        _resume=False,
    )  # fmt: skip
    hook = SafeCheckpointHook(by_epoch=False, save_best='score', rule='greater')
    hook.before_train(runner)
    is_full = False
    for runner.iter, score, best in ((1, 0.5, 1), (2, 0.7, 2), (3, 0.6, 2)):
        hook.after_val_epoch(runner, {'score': score})
        assert checkpoints(tmp_path) == [f'best_score_iter_{best}.pth']
    is_full = True
    with pytest.raises(OSError, match='No space'):
        hook.after_val_epoch(runner, {'score': 0.8})
    assert checkpoints(tmp_path) == ['best_score_iter_2.pth']
