"""docs/api.md: in step with the docstrings, and with every public name."""

import importlib
import pkgutil
import runpy

from conftest import ROOT

import swinv2_mm

PAGE = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')


def test_page_is_that_of_the_docstrings(tool):
    status, errors = tool('analysis/api_page', '--check')
    assert status == 0, errors


def test_every_public_name_is_on_it():
    lacking = []
    for found in pkgutil.walk_packages(swinv2_mm.__path__, 'swinv2_mm.'):
        if found.ispkg:
            module = importlib.import_module(found.name)
            lacking += [n for n in getattr(module, '__all__', ()) if f'\n### `{n}`\n' not in PAGE]
    assert not lacking


def test_every_name_for_configs_is_on_it():
    names = runpy.run_path(str(ROOT / 'tools/analysis/api_page.py'))['registered']()
    assert 'SwinV2' in names and 'SignalHook' in names
    assert not [name for name in names if f'\n| `{name}` |' not in PAGE]


def test_docstring_sections_become_lists():
    as_markdown = runpy.run_path(str(ROOT / 'tools/analysis/api_page.py'))['as_markdown']
    text = as_markdown(
        """One line.

        Args:
            first: What ``x`` is,
                and more.

        Shapes:
            (B, C) -> (B,)

        The end.
        """
    )
    assert text.split('\n\n') == [
        'One line.',
        '**Args**',
        '- `first`: What `x` is,\n  and more.',
        '**Shapes**',
        '```text\n(B, C) -> (B,)\n```',
        'The end.',
    ]
