"""Bring the translations in ``docs/locale`` up to date with the pages, or say what they lack.

Each page of ``PAGES`` is translated in full; all others are English in both sites. A sentence that
changed loses its translation: write the new one into the ``.po`` file, and run this again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from swinv2_mm.cli.running import run_tool
from swinv2_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LANGUAGE = 'zh_CN'
PAGES = tuple(
    f'docs/{name}'
    for name in ('README', 'install', 'getting_started', 'custom_dataset', 'windows', 'faq')
)
# What a translation keeps as it is: code, targets of links, addresses.
_KEPT = re.compile(r'`[^`]+`|\]\([^)]*\)|https?://\S+')
_LETTER = re.compile(r'[^\W\d_]')
_NUMBER = re.compile(r'\d+(?:[.,]\d+)*')


def catalog_path(page: str) -> Path:
    """Return the file of translations of a page."""
    return ROOT / 'docs' / 'locale' / LANGUAGE / 'LC_MESSAGES' / f'{page}.po'


def gettext_options(folder: Path) -> list[str]:
    """Return what Sphinx is called with to write the messages of the pages into a folder.

    Links to other pages, which it does not read, are reported as missing.
    """
    sources = ','.join(f'{page}.md' for page in PAGES)
    return [
        '-b',
        'gettext',
        '-q',
        '-c',
        'docs',
        '-D',
        f'include_patterns={sources}',
        '.',
        str(folder),
    ]


def extract(folder: Path) -> None:
    """Write the messages of the pages into a folder.

    Raises:
        UserError: If Sphinx fails.
    """
    command = [sys.executable, '-m', 'sphinx', *gettext_options(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f'Sphinx could not read the pages: {done.stderr.strip()}')


def template(folder: Path, page: str) -> Catalog:
    """Return the messages of a page that the gettext builder has written into a folder."""
    with (folder / f'{page}.pot').open('rb') as file:
        return read_po(file)


def translation(page: str) -> Catalog:
    """Return the translations of a page; none if there is no file yet."""
    path = catalog_path(page)
    if not path.is_file():
        header = f'# Chinese of {page}.md; python -m dev.translations adds what is new on the page.'
        return Catalog(locale=LANGUAGE, project='swinv2_mm', header_comment=header, fuzzy=False)
    with path.open('rb') as file:
        return read_po(file, locale=LANGUAGE)


def problems(folder: Path) -> Iterator[str]:
    """Yield what the translations lack, and what in them no page has any more.

    Args:
        folder: Where the gettext builder has written the messages.
    """
    for page in PAGES:
        messages = {message.id: message for message in template(folder, page) if message.id}
        found = translation(page)
        translated = {message.id: message for message in found if message.id}
        for text in messages:
            if not _LETTER.search(_KEPT.sub('', text)):
                continue  # nothing but code, links and numbers
            if text not in translated or not translated[text].string:
                yield f'{page}: not translated: {text}'
            elif translated[text].fuzzy:
                yield f'{page}: fuzzy: {text}'
            else:
                yield from _differences(page, text, str(translated[text].string))
        for text in [*(set(translated) - set(messages)), *found.obsolete]:
            yield f'{page}: on no page: {text}'


def _differences(page: str, text: str, translated: str) -> Iterator[str]:
    for what, pattern in (('code and links', _KEPT), ('numbers', _NUMBER)):
        plain = [t if pattern is _KEPT else _KEPT.sub('', t) for t in (text, translated)]
        ours, theirs = (sorted(pattern.findall(one)) for one in plain)
        if ours != theirs:
            yield f'{page}: {what} differ, {ours} and {theirs}: {text}'


def update(folder: Path) -> None:
    """Give every file of translations the messages of its page; sentences that are gone go."""
    for page in PAGES:
        found = translation(page)
        made = found.creation_date
        found.update(template(folder, page), no_fuzzy_matching=True)
        found.obsolete.clear()
        found.creation_date = made  # no change without a change of messages
        path = catalog_path(page)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('wb') as file:
            write_po(file, found, width=100, ignore_obsolete=True)


def main() -> None:
    """Update the translations and report what they lack."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        extract(Path(folder))
        update(Path(folder))
        found = list(problems(Path(folder)))
    for line in found:
        print(line)
    if found:
        raise UserError(f'{len(found)} messages need work')


if __name__ == '__main__':
    run_tool(main)
