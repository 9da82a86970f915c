"""What ran of the documentation: printed at the end by the hook of ``conftest.py``."""


def pytest_terminal_summary(terminalreporter):
    """Print totals, what was not run and why, and the commands that were shortened."""
    runs = [
        (
            report.nodeid.partition('::')[2].partition('[')[0],
            dict(report.user_properties)['document'],
        )
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, 'when', None) == 'teardown'
        and 'document' in dict(report.user_properties)
    ]
    for kind in sorted({kind for kind, _ in runs}):
        found = [numbers for name, numbers in runs if name == kind]
        blocks, commands = (sum(n[key] for n in found) for key in ('blocks', 'commands'))
        not_run = sorted({line for numbers in found for line in numbers['not run']})
        terminalreporter.section(f'{kind}: {len(found)} documents')
        terminalreporter.write_line(
            f'{blocks} blocks ran, with {commands} commands; {len(not_run)} blocks not run:'
        )
        for line in not_run:
            terminalreporter.write_line(f'  {line}')
        terminalreporter.write_line('commands that were made quick, as they ran:')
        for line in sorted({line for numbers in found for line in numbers['rewritten']}):
            terminalreporter.write_line(f'  {line}')
