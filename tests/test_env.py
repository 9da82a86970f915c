"""The report of what is installed and works."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

import swinv2_mm
from swinv2_mm.checkpoint import save_pretrained
from swinv2_mm.cli.commands import env as command
from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.installed import missing_package, pip_line


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


def test_without_openmmlab(tmp_path):
    """Every command but ``checkpoint`` and ``env`` names what it lacks, in one sentence."""
    code = (
        'import os, sys\n'
        "for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):\n"
        '    sys.modules[name] = None\n'
        'from swinv2_mm.cli.dispatch import main\n'
        "lines = ('env', 'new detection --data .', 'check c.py', 'train c.py', 'test c.py w.pth',\n"
        "    'infer a.jpg --config c.py --weights w.pth', 'report work',\n"
        "    'export c.py w.pth o.onnx', 'complexity c.py', 'memory c.py --budget 8GB',\n"
        "    'checkpoint convert w.pth o.safetensors --layout timm', 'checkpoint inspect w.pth')\n"
        'for line in lines:\n'
        "    sys.argv = ['swinv2-mm', *line.split()]\n"
        '    try:\n'
        '        main()\n'
        '    except SystemExit as end:\n'
        '        print(end.code, line, file=sys.stderr)\n'
        "print('telemetry off', os.environ['ORT_DISABLE_TELEMETRY'])\n"
        'import swinv2_mm.models\n'
    )
    arch = dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2))
    save_pretrained(SwinTransformerV2(arch, window_size=4, out_indices=(0, 1)), tmp_path / 'w.pth')
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("pip install 'swinv2_mm[openmmlab]'") == 4
    assert 'telemetry off 1' in done.stdout
    assert 'loaded from own weights' in done.stdout and (tmp_path / 'o.safetensors').is_file()
    lines = [line for line in done.stderr.splitlines() if 'mmengine is not installed' in line]
    *errors, last = lines
    assert len(errors) == 9 and all(line.startswith('error: ') for line in errors)
    assert 'MissingPackageError' in last and 'swinv2_mm[openmmlab]' in last
    assert done.stderr.count('Traceback (most') == 2, done.stderr  # of the import, and its cause


@pytest.mark.parametrize(
    ('mmengine', 'line'),
    [('onedl-mmengine 0.10.12', "'swinv2_mm[openmmlab]'"), ('mmengine 0.10.7', 'mmsegmentation')],
)
def test_upstream_packages_stay_upstream(mmengine, line, monkeypatch):
    monkeypatch.setattr('swinv2_mm.installed.installed', lambda module: mmengine)
    assert line in pip_line('mmseg')


def test_opencv_without_a_display_names_the_other_build():
    error = ImportError('libGL.so.1: cannot open shared object file', name='cv2')
    assert 'opencv-python-headless' in missing_package(error)
    assert missing_package(ModuleNotFoundError("No module named 'mine'", name='mine')) is None
