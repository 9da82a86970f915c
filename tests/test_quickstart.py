"""The demo, with hardly any training: every step of it, and what it prints."""

import time
from concurrent.futures import Executor, Future
from functools import partial

from conftest import ROOT
from forked import fork_script, status_of

import swinv2_mm.models  # noqa: F401  once, for all steps
from projects.digits import dataset
from swinv2_mm.cli import demonstrations
from swinv2_mm.cli.commands import quickstart as command


def run_step(step, *, log, environment, on_poll):
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
