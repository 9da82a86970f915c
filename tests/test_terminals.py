"""docs/terminals.md: recorded from real runs, narrow, quick to speak, without foreign noise."""

import re

import pytest

from dev.made_parts import made_part
from dev.terminals import COMMANDS, PAGE, recordings

WIDTH = 120
FIRST_WORD_S = 3
# Traces of other packages, of Python, and of the machine that it was recorded on.
NOISE = (
    r'Warning\b(?!:)|warnings\.warn|Traceback|site-packages|loading annotations|Loading and '
    r'preparing|creating index|DONE \(t=|Evaluate annotation type|\x1b|/(work|home|root|tmp)/'
)


def lines_of(name):
    """What a command printed, as the page has it, and the seconds until the first line."""
    text = '\n'.join(made_part(PAGE.read_text(), name))
    block, rest = re.fullmatch(r'```text\n(.*?)\n```\n\n(.*)', text, re.S).groups()
    seconds = float(re.search(r'First line after ([\d.]+) s', rest)[1])
    return block.splitlines(), seconds, int(re.search(r'exit status (\d+)', rest)[1])


@pytest.mark.parametrize('name', COMMANDS)
def test_recorded_terminal(name):
    lines, seconds, status = lines_of(name)
    typed = ' '.join(line.strip(' \\') for line in lines if line.startswith(('$', '      --')))
    assert typed == f'$ {COMMANDS[name]}'
    assert len(lines) > 3
    # A command is one line, to be copied.
    assert [line for line in lines if len(line) > WIDTH and 'swinv2-mm ' not in line] == []
    assert [line for line in lines if re.search(NOISE, line)] == []
    assert seconds < FIRST_WORD_S
    assert status == (75 if name == 'train' else 0)


def skeleton(lines):
    """Lines without numbers, in which two runs may differ; warnings about the machine left out."""
    return [' '.join(re.sub(r'[\d.:e+-]*\d[\d.:e+-]*', '#', line).split()) for line in lines]


@pytest.mark.slow
def test_the_page_is_what_the_commands_print(tmp_path):
    for name, recording in recordings(tmp_path).items():
        block = recording.as_lines()
        recorded = block[1 : block.index('```', 1)]
        stored, _, status = lines_of(name)
        assert recording.status == status, recorded
        assert recording.first_after_s < FIRST_WORD_S
        # Whether a class has a score, and which metric is the best, is the training's affair.
        ours, theirs = ({line[:40] for line in skeleton(part)} for part in (recorded, stored))
        assert len(ours ^ theirs) <= 0.2 * len(ours | theirs), sorted(ours ^ theirs)
