"""Build the documentation by Sphinx: ``make docs``, or ``sphinx-build -W -n -c docs . FOLDER``.

The sources are read from the root of the repository, so that a link between ``docs``, ``projects``
and the README means the same here as on a code host. The contents are those of ``docs/README.md``.

``-D language=zh_CN`` builds the same site in Chinese, from the translations in ``docs/locale``;
what they lack stays English. ``dev/translations.py`` brings them up to date with the pages.
"""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Puts the stand-in for mmcv's compiled ops in place before autodoc imports what needs mmcv.
import swinv2_mm.models  # noqa: E402

project = 'swinv2_mm'
author = copyright = 'the authors of swinv2_mm'
version = release = swinv2_mm.__version__

root_doc = 'docs/README'
include_patterns = [
    '*.md', 'docs/*.md', 'docs/tutorials/*.ipynb', 'docs/api/*.rst', 'projects/*/README.md',
]  # fmt: skip
# Folders that are not even walked through.
exclude_patterns = ['.*', 'build', 'data', 'work_dirs']
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon']
# Notebooks have their outputs in them: dev/tutorials.py.
nb_execution_mode = 'off'

html_theme = 'furo'
html_title = f'swinv2_mm {release}'
html_copy_source = False
templates_path = ['_templates']
# The first page of the site leads to the contents.
html_additional_pages = {'index': 'index.html'}
html_sidebars = {
    '**': [
        'sidebar/brand.html', 'sidebar/search.html', 'sidebar/language.html',
        'sidebar/scroll-start.html', 'sidebar/navigation.html', 'sidebar/scroll-end.html',
    ]
}  # fmt: skip

# A file of translations per page, without line numbers, which change with every sentence.
language = 'en'
locale_dirs = ['docs/locale']
gettext_compact = False
gettext_location = False

# As deep as links of the pages go; names are those of a code host.
myst_heading_anchors = 4

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_custom_sections = ['Shapes']
# References to other packages are not looked up: the build needs no network.
nitpick_ignore_regex = [('py:.*', r'(?!swinv2_mm\.).*')]


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Build the hidden tables of contents from the list of pages in ``docs/README.md``."""
    if docname != root_doc:
        return
    for caption, links in re.findall(r'^\*\*(.+)\*\*\n\n((?:- .*\n(?:  .*\n)*)+)', source[0], re.M):
        pages = re.findall(r'\]\(([^)#]+)\.(?:md|rst|ipynb)\)', links)
        lines = [f':caption: {caption}', ':hidden:', '', *pages]
        source[0] += '\n'.join(['', '```{toctree}', *lines, '```', ''])


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect('source-read', add_contents)
