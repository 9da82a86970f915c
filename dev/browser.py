"""Open Chromium, for pictures of pages and for their tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A camera that shows a moving pattern, and no question whether the page may use it.
_CAMERA = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']


@contextmanager
def chromium() -> Iterator[Browser]:
    """Open the Chromium of the system without a window.

    Raises:
        UserError: If it, or playwright, is not installed.
    """
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        raise UserError('a browser is needed: apt-get install chromium')
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise UserError(
            f'{error}: the browser is driven by pip install -r requirements/browser.txt'
        ) from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=['--no-sandbox', *_CAMERA]
        )
        try:
            yield browser
        finally:
            browser.close()
