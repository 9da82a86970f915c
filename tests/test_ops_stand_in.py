"""The stand-in for ``mmcv._ext``: when it is installed, its ops, its log message."""

import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from swinv2_mm.ops import ensure_ops

pytest.importorskip('mmcv')
ensure_ops()

import mmcv  # noqa: E402
import mmcv.ops  # noqa: E402
from mmengine.utils.dl_utils import mmcv_full_available  # noqa: E402

from swinv2_mm.installed import installed  # noqa: E402
from swinv2_mm.ops.stand_in import COVERED, StandIn, build  # noqa: E402

IS_COMPILED = not isinstance(sys.modules['mmcv._ext'], StandIn)
needs_compiled_mmcv = pytest.mark.skipif(
    not IS_COMPILED, reason='mmcv is installed without compiled ops'
)
needs_missing_ops = pytest.mark.skipif(IS_COMPILED, reason='mmcv is installed with compiled ops')

# Put before a script: what a compiled module that does not load looks like.
BROKEN_EXTENSION = """
import sys
from importlib.machinery import ModuleSpec

class Broken:
    def find_spec(self, name, path, target=None):
        return ModuleSpec(name, self) if name == 'mmcv._ext' else None
    def create_module(self, spec):
        raise ImportError('undefined symbol: _ZN2at')
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Broken())
"""


def run(script, **kwargs):
    """The output of a script in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(script)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        **kwargs,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_package_imports_nothing_heavy():
    script = """
        import sys, swinv2_mm.ops
        print(sorted({'torch', 'torchvision', 'numpy', 'mmcv', 'mmengine'} & set(sys.modules)))
    """
    assert run(script) == '[]\n'


@needs_missing_ops
def test_it_is_a_module_like_any_other():
    module = sys.modules['mmcv._ext']
    assert mmcv._ext is module
    assert importlib.util.find_spec('mmcv._ext') is module.__spec__
    assert module.__spec__.loader is module.__loader__ is not None
    assert mmcv_full_available()
    assert module.__name__ == 'mmcv._ext' and module.__package__ == 'mmcv'
    assert not hasattr(module, '__path__') and not hasattr(module, '_private')


@needs_missing_ops
def test_ensuring_twice_changes_nothing():
    before = sys.modules['mmcv._ext']
    ensure_ops()
    assert sys.modules['mmcv._ext'] is before


def test_an_op_that_is_not_covered_says_so(monkeypatch):
    monkeypatch.setattr(sys.modules['mmcv.ops.bbox'], 'ext_module', build())
    with pytest.raises(NotImplementedError) as caught:
        mmcv.ops.bbox_overlaps(torch.zeros(1, 4), torch.zeros(1, 4))
    message = str(caught.value)
    assert 'bbox_overlaps' in message and 'mmcv-lite' in message and installed('mmcv') in message
    assert 'pip install --no-build-isolation' in message and 'MAX_JOBS=2' in message
    assert '\n' not in message


def test_the_report_of_the_environment_works():
    module = build()
    assert module.get_compiler_version() == module.get_compiling_cuda_version() == 'n/a'


def test_without_mmcv_nothing_happens():
    script = """
        import sys
        sys.modules['mmcv'] = None
        from swinv2_mm.ops import ensure_ops
        ensure_ops()
        print('mmcv._ext' in sys.modules, 'swinv2_mm.ops.stand_in' in sys.modules)
    """
    assert run(script) == 'False False\n'


def test_compiled_ops_win():
    script = """
        import sys, types, mmcv
        compiled = sys.modules['mmcv._ext'] = types.ModuleType('mmcv._ext')
        from swinv2_mm.ops import ensure_ops
        ensure_ops()
        print(sys.modules['mmcv._ext'] is compiled, 'swinv2_mm.ops.stand_in' in sys.modules)
    """
    assert run(script) == 'True False\n'


def test_a_broken_extension_is_replaced_and_the_log_says_why(tmp_path):
    script = """
        from swinv2_mm.ops import ensure_ops
        ensure_ops()
        import torch
        from mmengine.logging import MMLogger
        MMLogger.get_instance('run', log_file='run.log')
        sys.modules['mmcv._ext'].nms(torch.zeros(1, 4), torch.ones(1), 0.5, 0)
    """
    root = Path(__file__).parents[1]
    prologue = f'import os, sys\nsys.path.insert(0, {str(root)!r})\nos.chdir({str(tmp_path)!r})\n'
    run(prologue + BROKEN_EXTENSION + textwrap.dedent(script))
    log = (tmp_path / 'run.log').read_text()
    assert 'WARNING' in log and 'undefined symbol: _ZN2at' in log


@needs_missing_ops
def test_it_is_announced_once_in_the_log_of_the_run(tmp_path):
    script = f"""
        from swinv2_mm.ops import ensure_ops
        ensure_ops()
        import torch
        from mmcv import _ext
        from mmengine.logging import MMLogger

        boxes, scores = torch.zeros(1, 4), torch.ones(1)
        _ext.nms(boxes, scores, 0.5, 0)  # no logger yet: silence, and none is created
        print('loggers', len(MMLogger._instance_dict))
        MMLogger.get_instance('run', log_file={str(tmp_path / 'run.log')!r})
        _ext.nms(boxes, scores, 0.5, 0)
        _ext.nms(boxes, scores, 0.5, 0)
        _ext.softnms(boxes, scores, torch.zeros(1, 5), 0.5, 0.5, 0.1, 1, 0)
        ensure_ops()
    """
    output = run(script)
    assert output.startswith('loggers 0\n')
    assert output.count('mmcv has no compiled ops') == 1
    log = (tmp_path / 'run.log').read_text()
    assert log.count('mmcv has no compiled ops') == 1 and 'INFO' in log


@needs_compiled_mmcv
@pytest.mark.parametrize('name', sorted(COVERED))
def test_the_signature_is_the_compiled_one(name):
    from mmcv import _ext

    compiled = re.findall(r'(\w+): ', getattr(_ext, name).__doc__.splitlines()[0])
    assert list(inspect.signature(COVERED[name]).parameters) == compiled
