"""Command lines of the tools: help that answers at once, examples that parse, completion."""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from swinv2_mm.core.position_bias import POSITION_BIASES

TOOLS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('tools', 'projects', 'benchmarks')
    for path in (ROOT / folder).rglob('*.py')
    if 'def parse_args' in path.read_text()
)
SECONDS = 5  # half a second on an idle machine; with torch imported first it would be many
CONFIG = 'configs/classification/swinv2-nano-w8_digits.py'


@pytest.fixture(scope='module')
def help_of():
    """The help text of a tool, and of its commands."""
    found = {}

    def ask(tool, *command):
        if (tool, *command) not in found:
            environment = {**os.environ, 'COLUMNS': '100', 'PYTHONPATH': str(ROOT)}
            start = time.monotonic()
            done = subprocess.run(
                [sys.executable, tool, *command, '--help'],
                cwd=ROOT, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            found[(tool, *command)] = done.stdout, time.monotonic() - start
        return found[(tool, *command)]

    return ask


def examples(text):
    return [line.strip() for line in text.partition('examples:\n')[2].splitlines()]


@pytest.mark.parametrize('tool', TOOLS)
def test_help_comes_at_once_and_shows_examples_of_the_tool(tool, help_of):
    text, seconds = help_of(tool)
    assert seconds < SECONDS
    assert any(f'python {tool}' in line for line in examples(text))


@pytest.mark.parametrize('flags', [[], ['-u']])
def test_who_reads_may_stop(flags):
    """As head does: found out at the end, or at the first line."""
    tool = ROOT / 'tools/analysis/complexity.py'
    command = [sys.executable, *flags, tool, ROOT / CONFIG, '--shape', '64']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, b'')


@pytest.mark.parametrize('tool', TOOLS)
def test_examples_parse(tool, help_of, monkeypatch):
    module = runpy.run_path(str(ROOT / tool), run_name='imported')
    for line in examples(help_of(tool)[0]):
        words = shlex.split(line.rpartition(' | ')[2])
        if words[:2] == ['python', tool]:
            monkeypatch.setattr('sys.argv', words[1:])
            module['parse_args']()


@pytest.mark.parametrize(
    ('tool', 'option'), [('tools/infer.py', '--batch-size N'), ('tools/demo.py', '--port PORT')]
)
def test_defaults_are_shown(tool, option, help_of):
    text = help_of(tool)[0]
    assert '(default: ' in text[text.index(f'\n  {option}') :].split('\n  --')[1]


def test_choices_are_those_of_the_code(help_of):
    text = help_of('projects/window_transfer/tools/compare.py')[0]
    (offered,) = re.findall(r'--biases \{(.*?)\}', text[text.index('the study:') :])
    assert set(offered.split(',')) == set(POSITION_BIASES)


def completions(line, *, folder=ROOT):
    """What a shell would offer after ``line``, by argcomplete's protocol for bash."""
    tool = shlex.split(line)[1]
    environment = {
        **os.environ,
        '_ARGCOMPLETE': '2',  # the first word is the interpreter
        'COMP_LINE': line,
        'COMP_POINT': str(len(line)),
        'COMP_TYPE': '9',
        '_ARGCOMPLETE_SHELL': 'bash',
        '_ARGCOMPLETE_COMP_WORDBREAKS': ' ',
        '_ARGCOMPLETE_SUPPRESS_SPACE': '1',
        '_ARGCOMPLETE_IFS': '\n',
        'PYTHONPATH': str(ROOT),
    }
    # Answers go to file descriptor 8.
    command = f'{shlex.quote(sys.executable)} {tool} 8>&1 9>/dev/null >/dev/null'
    done = subprocess.run(
        ['bash', '-c', command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [word.strip() for word in done.stdout.split('\n')]


@pytest.mark.parametrize(
    ('line', 'offered'),
    [
        ('python tools/train.py --res', ['--resume']),
        ('python tools/train.py configs/classification/swinv2-nano-w8_d', [CONFIG]),
        ('python tools/train.py conf', ['configs/']),
        (f'python tools/train.py {CONFIG} --launcher s', ['slurm']),
        ('python tools/checkpoint.py conv', ['convert']),
        ('python tools/checkpoint.py convert a.pth b.pth --layout hug', ['huggingface']),
        ('python tools/analysis/plot.py bias --win', ['--windows']),
    ],
)
def test_completion(line, offered):
    assert completions(line) == offered


def test_completion_offers_weights_and_folders_only(tmp_path):
    for name in ('iter_1.pth', 'iter_1.txt', 'iter_2.safetensors'):
        (tmp_path / name).touch()
    line = f'python {ROOT}/tools/test.py {ROOT}/{CONFIG} iter'
    assert sorted(completions(line, folder=tmp_path)) == ['iter_1.pth', 'iter_2.safetensors']


@pytest.mark.parametrize('tool', TOOLS)
def test_shells_recognise_the_tool(tool):
    assert 'PYTHON_ARGCOMPLETE_OK' in (ROOT / tool).read_text()[:1024]
