"""The documentation as a site: Sphinx builds it without a warning, with every public name."""

import importlib
import pkgutil
import subprocess
import sys

import pytest
from conftest import ROOT
from documents import documents
from mmengine import registry

import swinv2_mm


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The folder of the built site."""
    pytest.importorskip('sphinx')
    folder = tmp_path_factory.mktemp('site')
    command = ['-m', 'sphinx', '-W', '-n', '--keep-going', '-q', '-c', 'docs', '.', str(folder)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='module')
def documented(site):
    """The full names of the classes, functions and data of the API pages."""
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / 'objects.inv').read_bytes(), uri='')
    return {
        name for kind, items in inventory.data.items() if kind.startswith('py:') for name in items
    }


def test_every_document_is_a_page(site):
    assert (site / 'index.html').is_file()
    pages = [path for path in documents() if path.suffix == '.md']
    assert len(pages) > 20
    assert not [path for path in pages if not (site / path.with_suffix('.html')).is_file()]


def test_every_public_name_is_documented(documented):
    public = []
    for found in pkgutil.walk_packages(swinv2_mm.__path__, 'swinv2_mm.'):
        if found.ispkg:
            names = getattr(importlib.import_module(found.name), '__all__', ())
            public += [f'{found.name}.{name}' for name in names]
    assert 'swinv2_mm.core.SwinTransformerV2' in public
    assert sorted(set(public) - documented) == []


def test_every_name_for_configs_is_documented(documented):
    for path in sorted((ROOT / 'swinv2_mm').rglob('*.py')):
        if '.register_module(' in path.read_text(encoding='utf-8'):
            importlib.import_module('.'.join(path.relative_to(ROOT).with_suffix('').parts))
    registered = {
        f'{found.__module__}.{found.__name__}'
        for root in vars(registry).values()
        if isinstance(root, registry.Registry)
        for found in root.module_dict.values()
        if found.__module__.startswith('swinv2_mm')
    }
    assert 'swinv2_mm.models.backbone.SwinV2' in registered
    assert sorted(registered - documented) == []
