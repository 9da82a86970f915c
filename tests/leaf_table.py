"""The table of configs that the harness ends with: a hook of pytest, named in ``conftest.py``."""

from collections.abc import Iterable, Iterator, Mapping

STEPS = ('build', 'train', 'test')


def rows(properties: Iterable[Mapping]) -> Iterator[str]:
    """One line per leaf: the seconds of each step, or where it failed."""
    for found in sorted(properties, key=lambda found: found['leaf']):
        failed = next((step for step in STEPS if step not in found), None)
        cells = [
            f'{found[step]:.1f} s' if step in found else 'FAILED' if step == failed else '-'
            for step in STEPS
        ]
        yield f'{found["leaf"]:<88}' + ''.join(f'{cell:>8}' for cell in cells)


def pytest_terminal_summary(terminalreporter):
    """Print the table, if leaves were run; workers of xdist send theirs with the reports."""
    leaves = [
        dict(report.user_properties)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, 'when', None) == 'call' and 'leaf' in dict(report.user_properties)
    ]
    if leaves:
        terminalreporter.section(f'{len(leaves)} configs')
        terminalreporter.write_line(f'{"":<88}' + ''.join(f'{step:>8}' for step in STEPS))
        for row in rows(leaves):
            terminalreporter.write_line(row)
