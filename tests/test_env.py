"""The report of what is installed and works."""

import subprocess
import sys

import pytest
from conftest import ROOT

import swinv2_mm
from swinv2_mm.cli.commands import env as command


@pytest.fixture
def failing(monkeypatch):
    """Have the import of a module fail."""
    real = command.import_module

    def fail(module, error):
        def imported(name):
            if name == module:
                raise error
            return real(name)

        monkeypatch.setattr(command, 'import_module', imported)

    return fail


def test_what_works_here():
    found = command.env()
    text = str(found)
    assert found.can_train and not [part for part in found.parts if part.problem]
    for word in (swinv2_mm.__version__, 'mmengine', 'mmcv', 'detection', 'ONNX export', 'torch '):
        assert word in text
    assert 'missing' not in text


def test_missing_part_has_its_pip_line(failing):
    failing('gradio', ModuleNotFoundError("No module named 'gradio'", name='gradio'))
    text = str(command.env())
    line = next(line for line in text.splitlines() if 'demo page' in line)
    assert "pip install 'swinv2_mm[demo_page]'" in line
    assert text.index('missing') < text.index('demo page')


@pytest.mark.parametrize('module', ['mmseg', 'mmseg.models'])
def test_part_that_does_not_import_gives_its_reason(module, failing):
    failing(module, AssertionError('MMCV==2.2.0 is used but incompatible'))
    (part,) = [part for part in command.env().parts if part.purpose == 'segmentation']
    assert 'MMCV==2.2.0' in str(part) and not part.is_missing and 'pip install' not in str(part)


def test_without_openmmlab():
    """Only the first lines are left, and an exit status that says so."""
    code = (
        'import sys\n'
        "for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):\n"
        '    sys.modules[name] = None\n'
        "sys.argv = ['swinv2-mm', 'env']\n"
        'from swinv2_mm.cli.dispatch import main\n'
        'main()\n'
    )
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("pip install 'swinv2_mm[openmmlab]'") == 3
    assert 'Traceback' not in done.stderr
