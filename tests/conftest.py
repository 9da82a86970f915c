import gc
import importlib.util
import os
import pathlib
import signal
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import document_totals
import leaf_table
import pytest
import torch

from swinv2_mm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / 'shared' / 'data'

# Two cores, several processes: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    leaf_table.pytest_terminal_summary(terminalreporter)
    document_totals.pytest_terminal_summary(terminalreporter)


@pytest.fixture(params=['pathlib', 'pathlib._local'])
def module_of_paths(request, monkeypatch):
    """Pickle paths as every Python does, and as 3.13 alone does."""
    monkeypatch.setitem(sys.modules, request.param, pathlib)
    monkeypatch.setattr(pathlib.PosixPath, '__module__', request.param)
    return request.param


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    """Run every test in the root of the project, where the paths of configs begin."""
    monkeypatch.chdir(ROOT)


class RunClock:
    """``time`` whose seconds differ at every call.

    MMEngine names the logger, message hub and folder of a run by the second, and two that begin in
    the same one share them.
    """

    def __init__(self):
        self._last = 0.0

    def time(self):
        self._last = max(time.time(), self._last + 1)
        return self._last

    def __getattr__(self, name):
        return getattr(time, name)


@pytest.fixture(scope='session', autouse=True)
def short_start_up():
    """Spare each training what takes longer than its steps here.

    The layout of the config's text, which MMEngine writes in five places; the look for a compiler
    and GPUs; the collection of garbage for every data set, among all that has been imported.
    """
    from mmengine.runner import runner

    import swinv2_mm.models  # noqa: F401

    environment = runner.collect_env()
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **style: (text, True))
        patch.setattr(runner, 'collect_env', lambda: dict(environment))
        patch.setattr(runner, 'time', RunClock())
        yield


@pytest.fixture(scope='module')
def browser():
    """Chromium; a test without one is skipped."""
    from dev.browser import chromium

    with ExitStack() as stack:
        try:
            opened = stack.enter_context(chromium())
        except UserError as error:
            pytest.skip(str(error))
        yield opened


@pytest.fixture(scope='session')
def digits_root(tmp_path_factory):
    """A data root that holds a small version of the demo's data set."""
    from tiny_data import renumber_categories

    from projects.digits.dataset import make_digits_on_photos

    root = tmp_path_factory.mktemp('data')
    make_digits_on_photos(
        root / 'digits',
        num_train=16,
        num_val=4,
        num_train_crops_per_class=8,
        num_val_crops_per_class=2,
        progress=False,
    )
    for path in (root / 'digits' / 'annotations').iterdir():
        renumber_categories(path)
    return root


@pytest.fixture(scope='session')
def data_root(digits_root):
    """The same with the photographs of ../shared beside it, where there are any."""
    if SHARED_DATA.is_dir():
        for source in SHARED_DATA.iterdir():
            if not (digits_root / source.name).exists():
                (digits_root / source.name).symlink_to(source)
    return digits_root


@pytest.fixture
def use_data(data_root, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(data_root))
    return data_root


@pytest.fixture
def tool(monkeypatch, capsys):
    """Run a tool in this process; returns its exit status and what it wrote to stderr.

    What it wrote to stdout is then in ``tool.printed``.
    """

    from mmengine.logging import MMLogger

    from swinv2_mm.cli.running import run_tool
    from swinv2_mm.engine.workers import STOP_SIGNALS

    def run(name, *arguments):
        script = ROOT / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(f'tool_{name}', script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr('sys.argv', [str(script), *map(str, arguments)])
        capsys.readouterr()
        # A logger of an earlier run writes to streams that are closed by now.
        for logger in MMLogger._instance_dict.values():
            logger.handlers.clear()
        MMLogger._instance_dict.clear()
        status = 0
        handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        try:
            run_tool(module.main)
        except SystemExit as stop:
            status = stop.code
        finally:
            # A training that ends early leaves its own, and processes that are started inherit.
            for number, handler in handlers.items():
                signal.signal(number, handler)
        run.printed, errors = capsys.readouterr()
        return status, errors

    return run


def only_line(errors):
    """The message; third parties may warn before it, but nothing may follow it."""
    assert 'Traceback' not in errors
    line = errors.strip().splitlines()[-1]
    assert line.startswith('error: ')
    return line


@pytest.fixture
def refused(tool):
    """Run a tool that must end in one line; returns the line."""

    def run(name, *arguments):
        status, errors = tool(name, *arguments)
        assert status == 1, errors
        return only_line(errors)

    return run


@pytest.fixture
def subprocess_environment(use_data):
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'SWINV2_DATA': str(use_data)}


@pytest.fixture
def with_loss_scaler(monkeypatch):
    """Settings of an optimiser wrapper that scales the loss, on a CPU; takes the scaler's."""
    amp = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{amp}.is_cuda_available', lambda: True)
    monkeypatch.setattr(f'{amp}.GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    return "type='LossScaledOptimWrapper', dtype='bfloat16', loss_scale=dict(init_scale={})"
