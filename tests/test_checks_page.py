"""docs/checks.md: every row names a test that there is."""

import ast
import re

from conftest import ROOT

ROW = re.compile(r'\| .+ \| .+ \| `(test_\w+\.py)::(test_\w+)` \|')


def test_every_row_has_its_test():
    text = (ROOT / 'docs' / 'checks.md').read_text()
    rows = [line for line in text.splitlines() if line.startswith('| ')]
    rows = [line for line in rows if not line.endswith('| test |')]
    assert len(rows) > 30
    lacking = []
    for row in rows:
        match = ROW.fullmatch(row)
        assert match, row
        file = ROOT / 'tests' / match[1]
        body = ast.parse(file.read_text()).body
        names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        if match[2] not in names:
            lacking.append(match[0])
    assert not lacking
