"""Two processes under torchrun: told to go, they go together; if one dies, the other ends too."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from resuming import checkpoint_differences
from test_distributed import free_port
from test_runner import ARCH
from test_tools import CLASSIFIER

from swinv2_mm.engine.preemption import PREEMPTED_STATUS

pytestmark = pytest.mark.slow

LENGTH = 40
TIMEOUT_S = 20
CONFIG = f"""
_base_ = {str(CLASSIFIER)!r}
model = dict(backbone=dict(arch={ARCH}), head=dict(in_channels=128))
train_dataloader = dict(batch_size=4, num_workers=1)
optim_wrapper = dict(accumulative_counts=3)
train_cfg = dict(max_iters={LENGTH}, val_interval={LENGTH})
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=-1), logger=dict(interval=1))
custom_hooks = [dict(type='EMAHook')]
env_cfg = dict(dist_cfg=dict(timeout={TIMEOUT_S}))
"""
# One image of the second process in the third iteration; samples are dealt out by turns.
POISON = """
custom_imports = dict(imports=['swinv2_mm.models', 'test_non_finite'])
train_dataloader['dataset'] = dict(pipeline=[
    dict(type='LoadCheckedImage'), dict(type='PackInputs'), dict(type='Poison', at=[21])])
train_cfg['max_iters'] = 6
custom_hooks += [dict(type='NonFiniteHook', action='skip')]
"""
# Or the second process stops by itself.
STOP_ONE = """
custom_imports = dict(imports=['swinv2_mm.models', 'test_several_processes'])
custom_hooks += [dict(type='StopOne')]
"""


class Job:
    """A command under torchrun, which can be watched and told."""

    def __init__(self, command, output, environment):
        self.output = output
        environment = {**environment, 'PYTHON': sys.executable, 'MASTER_PORT': str(free_port())}
        with self.output.open('w') as output:
            self.agent = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, env=environment, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def pids(self):
        children = open(f'/proc/{self.agent.pid}/task/{self.agent.pid}/children').read()
        return [int(pid) for pid in children.split()]

    def pid_of(self, rank):
        """The process of a rank, once there is one."""
        for pid in self.pids():
            if f'\0RANK={rank}\0' in open(f'/proc/{pid}/environ').read():
                return pid
        raise AssertionError(f'no process of rank {rank}')

    def kill(self):
        if self.agent.poll() is None:
            pids = self.pids()
            self.agent.kill()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            self.agent.wait()

    def wait_for(self, text):
        end = time.monotonic() + 300
        while text not in self.output.read_text():
            assert self.agent.poll() is None and time.monotonic() < end, self.output.read_text()
            time.sleep(0.05)

    def end(self, within_s):
        """Exit status, and the seconds until then."""
        start = time.monotonic()
        status = self.agent.wait(within_s)
        return status, time.monotonic() - start


@pytest.fixture
def start(tmp_path, subprocess_environment):
    (tmp_path / 'config.py').write_text(CONFIG)
    paths = [str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')]
    subprocess_environment['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    jobs = []

    def run(name, *arguments):
        config, folder = tmp_path / 'config.py', tmp_path / name
        command = ['tools/dist_train.sh', config, 2, '--work-dir', folder, *arguments]
        jobs.append(Job(command, tmp_path / f'{name}.txt', subprocess_environment))
        return jobs[-1]

    yield run
    for job in jobs:
        job.kill()


def test_they_go_and_come_back_together(start, tmp_path):
    assert start('whole').end(300)[0] == 0

    # One of them is told, in the middle of an accumulation; then all, by their agent.
    for iteration, number, rank in (
        (13, signal.SIGUSR1, 1),
        (21, signal.SIGTERM, None),
        (31, signal.SIGUSR1, None),
    ):
        job = start('broken', '--resume')
        job.wait_for(f'[{iteration}/{LENGTH}]')
        os.kill(job.agent.pid if rank is None else job.pid_of(rank), number)
        status, seconds = job.end(30)
        print(f'{signal.Signals(number).name} to {rank or "the agent"}: gone after {seconds:.1f} s')
        assert status == PREEMPTED_STATUS, job.output.read_text()
        assert (tmp_path / 'broken' / 'preempted.pth').exists()

    assert start('broken', '--resume').end(300)[0] == 0
    last = f'iter_{LENGTH}.pth'
    assert checkpoint_differences(tmp_path / 'whole' / last, tmp_path / 'broken' / last) == []


def test_if_one_is_killed_the_other_ends(start, tmp_path):
    job = start('run')
    job.wait_for(f'[12/{LENGTH}]')
    os.kill(job.pid_of(1), signal.SIGKILL)
    status, seconds = job.end(60)
    output = job.output.read_text()
    print(f'one of two processes killed: all ended after {seconds:.1f} s')
    assert status == 1 and seconds < 30
    errors = [line for line in output.splitlines() if line.startswith('error: ')]
    assert len(errors) == 2 and 'Traceback' not in output, output
    assert 'another process of this job has died' in errors[0]
    assert 'process 1 ' in errors[1] and 'with signal 9' in errors[1]


@HOOKS.register_module()
class StopOne(Hook):
    """Stops the second process before the two agree whether to go: they have a group for that."""

    priority = 'VERY_LOW'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 12 and runner.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize('stopped', ['anywhere', 'before they agree'])
def test_if_one_hangs_the_other_ends_after_the_timeout(stopped, start, tmp_path):
    if stopped == 'before they agree':
        with (tmp_path / 'config.py').open('a') as config:
            config.write(STOP_ONE)
    job = start('run')
    job.wait_for(f'[12/{LENGTH}]')
    if stopped == 'anywhere':
        os.kill(job.pid_of(1), signal.SIGSTOP)
    status, seconds = job.end(TIMEOUT_S + 60)
    output = job.output.read_text()
    print(f'one of two processes stopped: all ended after {seconds:.1f} s')
    assert status == 1
    # torchrun waits another 30 s for what it has to kill.
    assert TIMEOUT_S - 1 < seconds < TIMEOUT_S + 45
    assert 'another process of this job has died or does not answer' in output


def test_what_is_not_finite_in_one_is_left_out_by_both(start, tmp_path):
    with (tmp_path / 'config.py').open('a') as config:
        config.write(POISON)
    job = start('run')
    assert job.end(300)[0] == 0, job.output.read_text()
    report = json.loads((tmp_path / 'run' / 'non_finite' / 'iter_3.json').read_text())
    assert [rank['loss'] == 'nan' for rank in report['ranks']] == [False, True]
    bad = report['ranks'][1]
    assert bad['first_non_finite_module'] == 'data_preprocessor' and len(bad['images']) == 4
    weights = torch.load(tmp_path / 'run' / 'iter_6.pth', weights_only=False)
    assert all(value.isfinite().all() for value in weights['state_dict'].values())
    # Two updates of three iterations each, of which the first was left out.
    assert {int(state['step']) for state in weights['optimizer']['state'].values()} == {1}
