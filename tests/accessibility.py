"""What axe-core finds on a page that keeps people from using it."""

import pytest


def serious_findings(page):
    """Return the serious and critical findings of axe-core, a line for each element.

    It waits for transitions first: halfway between two colours, contrast is nobody's design.
    """
    axe = pytest.importorskip(
        'axe_playwright_python.sync_playwright', reason='pip install -r requirements/browser.txt'
    )
    page.wait_for_function(
        """document.getAnimations().every(animation => animation.playState !== 'running'
            || animation.effect.getComputedTiming().endTime === Infinity)"""
    )
    found = axe.Axe().run(page).response['violations']
    return [
        f'{finding["id"]}: {node["html"][:200]}'
        for finding in found
        if finding['impact'] in ('serious', 'critical')
        for node in finding['nodes']
    ]
