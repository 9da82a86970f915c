"""The demo, with hardly any training: every step of it, and what it prints."""

import threading
import time
from concurrent.futures import Executor, Future
from functools import partial

import pytest
from conftest import ROOT
from forked import fork_script, status_of

import swinv2_mm.models  # noqa: F401  once, for all steps
from projects.digits import dataset
from swinv2_mm.cli import demonstrations
from swinv2_mm.cli.commands import quickstart as command
from swinv2_mm.errors import UserError


def run_step(step, *, log, environment, on_poll, stopped):
    """Run a step in a process of its own, as the command does, but without the imports."""
    pid = fork_script(
        ROOT / 'tools' / f'{step[0]}.py', *step[1:], output=log, environment=environment
    )
    while (status := status_of(pid, is_awaited=False)) is None:
        on_poll()
        time.sleep(0.02)
    assert status == 0, log.read_text()


class InTurn(Executor):
    """Runs at once what is submitted; a process forked from a pool would wait for its threads."""

    def submit(self, function, *arguments, **settings):
        future = Future()
        future.set_result(function(*arguments, **settings))
        return future


def test_quickstart(tmp_path, monkeypatch, capsys):
    few = partial(
        dataset.make_digits_on_photos,
        num_val=4, num_train_crops_per_class=4, num_val_crops_per_class=1,
    )  # fmt: skip
    monkeypatch.setattr(dataset, 'make_digits_on_photos', few)
    monkeypatch.setattr(demonstrations, 'run_step', run_step)
    monkeypatch.setattr(command, 'ThreadPoolExecutor', InTurn)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    arguments = ['--work-dir', str(tmp_path), '--images', '8', '--iterations', '2']
    command.main(arguments)
    printed = capsys.readouterr().out
    for word in ('top-1 accuracy', 'mIoU', 'box AP50', 'mask AP50', 'guessing gives'):
        assert word in printed
    shown = [line.strip() for line in printed.splitlines() if line.startswith('  /')]
    assert len(shown) == 3 and all((tmp_path / path).stat().st_size > 0 for path in shown)


def test_a_failure_stops_the_other_demonstration(tmp_path, monkeypatch, capsys):
    seen = []

    def run_task(task, work_dir, *, pretrained, stopped, **_):
        if task.name == 'segmentation':
            raise RuntimeError('segmentation fails')
        if task.name == 'detection':
            seen.append(stopped.wait(30))
        return {}, work_dir

    monkeypatch.setattr(dataset, 'make_digits_on_photos', lambda *_, **__: None)
    monkeypatch.setattr(command, 'run_task', run_task)
    with pytest.raises(RuntimeError, match='segmentation'):
        command.quickstart(work_dir=tmp_path)
    assert seen == [True]


def test_what_is_stopped_ends_its_process(tmp_path, monkeypatch):
    stopped = threading.Event()
    monkeypatch.setattr(demonstrations, 'POLL_S', 0.01)
    monkeypatch.setattr(demonstrations.subprocess, 'Popen', sleeper := Sleeper())
    with pytest.raises(UserError, match='train x'):
        demonstrations.run_step(
            ['train', 'x'],
            log=tmp_path / 'log', environment={}, on_poll=stopped.set, stopped=stopped,
        )  # fmt: skip
    assert sleeper.returncode == -15


class Sleeper:
    """A process that runs until it is ended."""

    returncode = None

    def __call__(self, *_, **__):
        return self

    def poll(self):
        return self.returncode

    def terminate(self):
        self.returncode = -15

    def wait(self):
        return self.returncode
