"""Checkpoints survive whatever happens while the next one is written."""

import json
import logging
import os
from types import SimpleNamespace

import pytest
import torch
from conftest import only_line
from mmengine.logging import MessageHub
from test_runner import SMALL
from test_tools import CLASSIFIER

from swinv2_mm.engine import SafeCheckpointHook, saving

STEPS = ['train_cfg.max_iters=6', 'default_hooks.checkpoint.interval=2']


@pytest.fixture
def run(tool, use_data, tmp_path):
    def train(*arguments, options=(), is_validated=False):
        left_out = ('train_cfg.', 'default_hooks.', *['+val_'] * is_validated)
        chosen = [o for o in SMALL if not o.startswith(left_out)]
        return tool(
            'train', CLASSIFIER, '--work-dir', tmp_path, *arguments,
            '--cfg-options', *chosen, *STEPS, *options,
        )  # fmt: skip

    return train


def checkpoints(folder):
    return sorted(path.name for path in folder.iterdir() if '.pth' in path.name)


def failing_at(number, monkeypatch, write=b'half'):
    """Have the disk be full while the given checkpoint is written."""
    real, calls = saving.save_checkpoint, []

    def save(checkpoint, path, **settings):
        calls.append(path)
        if len(calls) < number:
            return real(checkpoint, path, **settings)
        with open(path, 'wb') as file:
            file.write(write)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(saving, 'save_checkpoint', save)


def test_a_full_disk_leaves_the_checkpoint_before(run, tmp_path, monkeypatch):
    keep = ['default_hooks.checkpoint.max_keep_ckpts=1']
    with monkeypatch.context() as patch:
        failing_at(2, patch)
        status, errors = run(options=keep)
    line = only_line(errors)
    assert status == 1 and 'iter_4.pth' in line and 'No space left' in line
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
    assert 'iter_6.pth' in log and 'iter_4.pth' in log
    again = torch.load(tmp_path / 'iter_6.pth', weights_only=False)['state_dict']
    assert all(torch.equal(whole[name], value) for name, value in again.items())


def test_resuming_from_nothing_starts_anew(run, tmp_path):
    status, errors = run('--resume')
    assert status == 0, errors
    assert 'training starts anew' in next(tmp_path.glob('*/*.log')).read_text()
    assert checkpoints(tmp_path) == ['iter_4.pth', 'iter_6.pth']


def test_resuming_removes_expired_checkpoints_and_nothing_else(run, tmp_path):
    """Their names come from the checkpoint that is resumed, which may be anybody's."""
    work_dir = tmp_path / 'work'
    assert run('--work-dir', work_dir, options=['train_cfg.max_iters=2'])[0] == 0
    others = [tmp_path / 'other.pth', work_dir / 'notes.txt', work_dir / 'part' / 'other.pth']
    expired = [work_dir / 'iter_1.pth', work_dir / 'iter_0.pth']
    (work_dir / 'part').mkdir()
    for path in (*others, expired[0]):
        path.touch()
    expired[1].mkdir()  # a sharded one
    content = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    names = ['../other.pth', str(others[0]), 'notes.txt', 'part/other.pth', 'part', 7]
    content['message_hub']['runtime_info']['expired_ckpts'] = [*names, *(p.name for p in expired)]
    torch.save(content, work_dir / 'iter_2.pth')
    status, errors = run('--resume', '--work-dir', work_dir, options=['train_cfg.max_iters=3'])
    assert status == 0, errors
    assert all(path.exists() for path in others)
    assert not any(path.exists() for path in expired)


@pytest.mark.parametrize('is_scored', [True, False])
def test_resuming_validates_what_has_not_been_scored(is_scored, run, tmp_path):
    options = [
        'default_hooks.checkpoint.save_best=accuracy/top1', 'train_cfg.val_interval=2',
        '+val_dataloader.dataset.indices=4',
    ]  # fmt: skip
    first, then = tmp_path / 'first', tmp_path / 'then'
    status, errors = run(
        '--work-dir', first, options=[*options, 'train_cfg.max_iters=2'], is_validated=True
    )
    assert status == 0, errors
    if not is_scored:  # as if it had been killed in the validation
        content = torch.load(first / 'iter_2.pth', weights_only=False)
        del content['message_hub']['runtime_info']['scored_at']
        torch.save(content, first / 'iter_2.pth')
    arguments = ['--resume', first / 'iter_2.pth', '--work-dir', then]
    status, errors = run(*arguments, options=[*options, 'train_cfg.max_iters=3'], is_validated=True)
    assert status == 0, errors
    (scalars,) = then.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    scored = [line['step'] for line in lines if 'accuracy/top1' in line]
    assert scored == ([3] if is_scored else [2, 3])


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
