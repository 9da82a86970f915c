"""What axe-core finds on a page that keeps people from using it."""

import pytest


def serious_findings(page):
    """Return the serious and critical findings of axe-core, a line for each element."""
    axe = pytest.importorskip(
        'axe_playwright_python.sync_playwright', reason='pip install -r requirements/browser.txt'
    )
    found = axe.Axe().run(page).response['violations']
    return [
        f'{finding["id"]}: {node["html"][:200]}'
        for finding in found
        if finding['impact'] in ('serious', 'critical')
        for node in finding['nodes']
    ]
