"""The documentation as a site: without a warning, with every public name, in two languages."""

import importlib
import pkgutil
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from documents import documents
from mmengine import registry

import swinv2_mm

pytest.importorskip('babel')  # of the extra `docs`, which Python 3.10 does not get
from dev import translations

# Builds by several builders in one process, which imports what the pages document.
BUILDS = 'import sys; from sphinx.cmd.build import main; sys.exit(sum(map(main, {})))'
STRICT = ('-W', '-n', '--keep-going', '-q', '-c', 'docs')


def build(*commands):
    done = subprocess.run(
        [sys.executable, '-c', BUILDS.format(commands)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The folders of the built site, and of the messages to translate."""
    pytest.importorskip('sphinx')
    folders = {name: tmp_path_factory.mktemp(name) for name in ('site', 'messages')}
    build(
        [*STRICT, '.', str(folders['site'])],
        translations.gettext_options(folders['messages']),
    )
    return folders


@pytest.fixture(scope='module')
def site(built):
    return built['site']


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
    pages = documents()
    assert len(pages) > 50
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


def test_every_sentence_of_the_translated_pages_is_translated(built):
    assert list(translations.problems(built['messages'])) == []
    assert all(len(list(translations.translation(page))) > 10 for page in translations.PAGES)


def test_a_sentence_that_changed_a_number_or_code_that_differs_is_found(
    built, tmp_path, monkeypatch
):
    page = 'docs/install'
    text = translations.catalog_path(page).read_text(encoding='utf-8')
    for old, new, problem in (
        ('msgid "Install"', 'msgid "Instal"', 'not translated: Install'),
        ('msgstr "安装"', 'msgstr ""', 'not translated: Install'),
        ('msgstr "安装"', 'msgstr "安装 7"', 'numbers differ'),
        ('msgstr "安装"', 'msgstr "安装 `x`"', 'code and links differ'),
        ('msgid "Install"', '#, fuzzy\nmsgid "Install"', 'fuzzy: Install'),
    ):
        assert old in text
        path = tmp_path / f'{page}.po'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace(old, new, 1), encoding='utf-8')
        monkeypatch.setattr(translations, 'PAGES', (page,))
        monkeypatch.setattr(translations, 'catalog_path', lambda page, path=path: path)
        found = list(translations.problems(built['messages']))
        assert any(problem in line for line in found), found


@pytest.mark.slow
def test_the_chinese_site(tmp_path):
    build([*STRICT, '-D', 'language=zh_CN', '.', str(tmp_path)])
    for page in translations.PAGES:
        text = (tmp_path / f'{page}.html').read_text(encoding='utf-8')
        title = re.search(r'<h1>(.*?)<', text)[1]
        assert re.search('[\u4e00-\u9fff]', title), page
