"""The wheel and the sdist: whole, and of use in a folder where no clone is."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import swinv2_mm
from swinv2_mm.cli.dispatch import COMMANDS
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import UserError
from swinv2_mm.shipped import recipe, shipped_root

SHIPPED = 'swinv2_mm/.mim'


def sources(*folders, suffixes=('.py', '.yml', '.html', '.sh', '.txt')):
    """Files of the tree, from its root."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob('*')
        if path.suffix in suffixes and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """Folder with the wheel, the sdist, and both unpacked."""
    out = tmp_path_factory.mktemp('dist')
    environment = {**os.environ, 'PYTHON': sys.executable}
    command = [str(ROOT / 'dev/ci/build.sh'), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(out.glob('*.whl'))) as archive:
        archive.extractall(out / 'wheel')
    with tarfile.open(next(out.glob('*.tar.gz'))) as archive:
        archive.extractall(out / 'sdist', filter='data')
    return out


@pytest.fixture(scope='module')
def metadata(built):
    (found,) = built.glob('wheel/*.dist-info')
    return Distribution.at(found)


@pytest.fixture
def run(built, tmp_path):
    """Run Python in an empty folder, with the package as the wheel has it."""

    def run(*words):
        environment = {**os.environ, 'PYTHONPATH': str(built / 'wheel'), 'OMP_NUM_THREADS': '1'}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_wheel_has_every_file(built):
    found = {path.relative_to(built / 'wheel').as_posix() for path in (built / 'wheel').rglob('*')}
    assert sources('swinv2_mm') | {'swinv2_mm/py.typed'} <= found
    shipped = {name for name in sources('configs', 'projects', 'tools') if '/tests/' not in name}
    shipped |= {'model-index.yml'}
    assert len(shipped) > 150
    assert {f'{SHIPPED}/{name}' for name in shipped} <= found
    assert not any('/tests/' in name or '__pycache__' in name for name in found)
    for listed in yaml.safe_load((built / 'wheel' / SHIPPED / 'model-index.yml').read_text())[
        'Import'
    ]:
        assert f'{SHIPPED}/{listed}' in found


def test_sdist_has_sources_and_tests(built):
    (folder,) = (built / 'sdist').iterdir()
    found = {path.relative_to(folder).as_posix() for path in folder.rglob('*')}
    wanted = sources('swinv2_mm', 'configs', 'projects', 'tools', 'tests', 'dev', 'benchmarks')
    wanted |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob('requirements/*.txt')}
    wanted |= {'setup.py', 'pyproject.toml', 'LICENSE', 'README.md', 'Makefile', '.ci/run'}
    wanted |= {'.github/workflows/ci.yml', '.pre-commit-config.yaml'}
    assert wanted <= found


def test_sdist_can_be_built_from(built, tmp_path):
    (folder,) = (built / 'sdist').iterdir()
    code = f'from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))'
    subprocess.run([sys.executable, '-c', code], cwd=folder, check=True, capture_output=True)
    (again,), (first,) = tmp_path.glob('*.whl'), built.glob('*.whl')
    names = [set(zipfile.ZipFile(path).namelist()) for path in (again, first)]
    assert names[0] == names[1]


def test_metadata(metadata):
    fields = message_from_bytes(metadata.read_text('METADATA').encode())
    assert fields['Version'] == swinv2_mm.__version__
    assert fields['License-Expression'] == 'Apache-2.0'
    assert fields['License-File'] == 'LICENSE'
    assert 'Programming Language :: Python :: 3.13' in fields.get_all('Classifier')
    extras = set(fields.get_all('Provides-Extra'))
    assert {'all', 'openmmlab', 'demo-page', 'export', 'test'} <= extras
    # Nothing of OpenMMLab without an extra: an environment that has it keeps what it has.
    plain = [line for line in fields.get_all('Requires-Dist') if 'extra ==' not in line]
    assert plain and not any('mm' in line for line in plain)
    (script,) = metadata.entry_points.select(group='console_scripts')
    assert (script.name, script.value) == ('swinv2-mm', 'swinv2_mm.cli.dispatch:main')


def test_every_extra_is_named_in_full(metadata):
    """A requirement file that no extra reads is never installed."""
    text = (ROOT / 'pyproject.toml').read_text()
    for path in (ROOT / 'requirements').glob('*.txt'):
        assert path.name == 'constraints.txt' or f'requirements/{path.name}' in text


def test_recipes_and_projects_of_the_wheel(run, built):
    code = (
        'import swinv2_mm\n'
        'from swinv2_mm.config.file import load_config\n'
        "path = swinv2_mm.recipe('detection/htc++_swinv2-nano-w12_facade')\n"
        'load_config(path)\n'
        'import projects.htc_plus_plus\n'
        'print(path, projects.htc_plus_plus.__file__, sep=chr(10))\n'
    )
    lines = run('-c', code).splitlines()[-2:]
    assert all(Path(line).is_relative_to(built / 'wheel' / SHIPPED) for line in lines)


@pytest.mark.parametrize('is_package', [False, True])
def test_projects_of_a_user_beside_ours(is_package, run, tmp_path):
    """A folder of that name in the user's project, with ``__init__.py`` or without."""
    (tmp_path / 'projects' / 'mine').mkdir(parents=True)
    (tmp_path / 'projects' / 'mine' / '__init__.py').touch()
    if is_package:
        (tmp_path / 'projects' / '__init__.py').touch()
    code = (
        'from swinv2_mm.shipped import add_projects_to_path\n'
        'add_projects_to_path()\n'
        'import projects.digits, projects.mine\n'
        'print(projects.mine.__file__, projects.digits.__file__, sep=chr(10))\n'
    )
    mine, ours = run('-c', code).splitlines()
    assert Path(mine).is_relative_to(tmp_path / 'projects')
    assert Path(ours).parts[-5:-3] == ('swinv2_mm', '.mim')


def test_inheriting_by_the_name_of_the_package(run, tmp_path):
    """Of MMEngine's own form, and of the one that also works before this package is imported."""
    name = 'detection/cascade-mask-rcnn_swinv2-t-w16_fpn_ms-3x_coco.py'
    head = 'dict(mask_head=_base_.model.roi_head.mask_head)'
    bases = (f"'swinv2_mm::{name}'", f"__import__('swinv2_mm').recipe({name!r})")
    for number, base in enumerate(bases):
        text = f'_base_ = {base}\nmodel = dict(roi_head={head})\n'
        (tmp_path / f'{number}.py').write_text(text)
    code = (
        'from swinv2_mm.config.file import load_config\n'
        "for name in ('0.py', '1.py'):\n"
        '    cfg = load_config(name)\n'
        "    print(cfg.model.backbone.window_size, '_scope_' in str(cfg.to_dict()))\n"
    )
    lines = [line for line in run('-c', code).splitlines() if line.endswith(('True', 'False'))]
    assert lines == ['16 False', '16 False']


@pytest.mark.parametrize(
    'base',
    [
        'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
        'mmpretrain::swin_transformer_v2/swinv2-tiny-w8_16xb64_in1k-256px.py',
    ],
)
def test_inheriting_from_the_libraries(base, tmp_path):
    import swinv2_mm.models  # noqa: F401

    (tmp_path / 'my.py').write_text(f'_base_ = {base!r}\n')
    assert load_config(str(tmp_path / 'my.py')).model.backbone.type


def test_every_command_of_the_wheel(run):
    assert set(COMMANDS) >= {'train', 'test', 'infer', 'report', 'export', 'check', 'quickstart'}
    for name in ('complexity', 'quickstart'):
        assert f'swinv2-mm {name}' in run('-m', 'swinv2_mm', name, '--help')
    name = 'swinv2_mm::classification/swinv2-nano-w8_flowers.py'
    assert 'parameters' in run('-m', 'swinv2_mm', 'complexity', name, '--shape', '64').lower()


def test_unknown_recipe_names_one_that_is_close():
    with pytest.raises(UserError, match='mask-rcnn_swinv2-t-w16_fpn_1x_coco'):
        recipe('detection/mask-rcnn_swinv2-t-w16_fpn_1x_cocoo')


@pytest.mark.parametrize(
    'path',
    [
        'configs/classification/swinv2-nano-w8_flowers.py',
        'projects/simmim/configs/swinv2-nano-w6_15e_flowers-96.py',
        'projects/pvtv2/configs/detection/mask-rcnn_pvtv2-b1_fpn_1x_coco.py',
    ],
)
def test_config_of_a_clone_names_that_of_the_package(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = path.partition('/')[2]
    with pytest.raises(UserError, match=f'swinv2_mm::{name}'):
        load_config(path)
    assert load_config(f'swinv2_mm::{name}').filename == recipe(name)


def test_clone_without_symbolic_links(monkeypatch, tmp_path):
    monkeypatch.setattr('swinv2_mm.shipped._PACKAGE', tmp_path / 'swinv2_mm')
    (tmp_path / 'swinv2_mm' / '.mim').mkdir(parents=True)
    (tmp_path / 'swinv2_mm' / '.mim' / 'configs').write_text('../../configs')
    assert shipped_root() == tmp_path


def test_jobs_call_scripts_that_are_here():
    runs = [
        step['run']
        for path in (ROOT / '.github' / 'workflows').glob('*.yml')
        for job in yaml.safe_load(path.read_text())['jobs'].values()
        for step in job['steps']
        if 'run' in step
    ]
    called = {word for run in runs for word in run.split() if word.startswith('dev/')}
    assert len(called) >= 4 and all(os.access(ROOT / name, os.X_OK) for name in called)


def test_version_is_in_one_place_and_copies_follow():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == swinv2_mm.__version__
    assert f'version = {{{swinv2_mm.__version__}}}' in (ROOT / 'docs/cite.md').read_text()
    script = ROOT / 'dev' / 'ci' / 'version.sh'
    refused = subprocess.run([script, '9.9.9'], capture_output=True, text=True)
    assert refused.returncode == 1 and '9.9.9' in refused.stderr
