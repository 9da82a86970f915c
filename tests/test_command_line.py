"""Command lines: help without slow imports, examples that parse, completion, dispatch."""

import inspect
import os
import platform
import re
import runpy
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

import swinv2_mm.cli
from swinv2_mm.cli.dispatch import COMMANDS, main
from swinv2_mm.core.position_bias import POSITION_BIASES

TOOLS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('tools', 'projects', 'benchmarks')
    for path in (ROOT / folder).rglob('*.py')
    if 'PYTHON_ARGCOMPLETE_OK' in path.read_text()[:1024]  # where shells look for it
)
SECONDS = 5  # half a second on an idle machine; with torch imported first it would be many
CONFIG = 'configs/classification/swinv2-nano-w8_digits.py'


def module_of(name):
    return import_module(f'swinv2_mm.cli.commands.{name}')


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


@pytest.mark.parametrize('flags', [[], pytest.param(['-u'], marks=pytest.mark.slow)])
def test_who_reads_may_stop(flags):
    """As head does: found out at the end, or at the first line."""
    tool = ROOT / 'tools/analysis/complexity.py'
    command = [sys.executable, *flags, tool, ROOT / CONFIG, '--shape', '64']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (128 + signal.SIGPIPE, b'')


def parser_of(tool):
    """What parses the command line of a script: that of the command it calls, or its own."""
    name = Path(tool).stem
    if name in COMMANDS:
        return lambda words: module_of(name).build_parser().parse_args(words)
    own = runpy.run_path(str(ROOT / tool), run_name='imported')
    return lambda words: own['parse_args']()


@pytest.mark.parametrize('tool', TOOLS)
def test_examples_parse(tool, help_of, monkeypatch):
    for line in examples(help_of(tool)[0]):
        words = shlex.split(line.rpartition(' | ')[2])
        if words[:2] == ['python', tool]:
            monkeypatch.setattr('sys.argv', words[1:])
            if tool == 'tools/dataset.py':
                assert words[2] in COMMANDS
            else:
                parser_of(tool)(words[2:])


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_of_the_package(name, help_of):
    text, seconds = help_of('-m', 'swinv2_mm', name)
    assert seconds < SECONDS
    assert f'usage: swinv2-mm {name} ' in text
    lines = [line for line in examples(text) if f'swinv2-mm {name}' in line]
    assert lines
    for line in lines:
        words = shlex.split(line.rpartition(' | ')[2])
        module_of(name).build_parser().parse_args(words[2:])


@pytest.mark.parametrize('name', swinv2_mm.cli.__all__)
def test_options_reach_the_function(name):
    """By name: an option that the function does not know would be dropped."""
    options = {action.dest for action in module_of(name).build_parser()._actions}
    parameters = set(inspect.signature(getattr(module_of(name), name)).parameters)
    of_the_command = {'help', 'trust_checkpoint', 'local_rank', 'verbose'}
    assert options - of_the_command == parameters - {'on_plan', 'on_row'}


def test_functions_of_the_package():
    """Not hidden by the modules of the same names, once those are imported."""
    for name in swinv2_mm.cli.__all__:
        module = module_of(name)
        function = inspect.unwrap(getattr(swinv2_mm.cli, name))
        assert function is getattr(module, name)
    with pytest.raises(AttributeError):
        swinv2_mm.cli.nothing  # noqa: B018


@pytest.mark.parametrize('words', [[], ['nothing'], ['--nothing']])
def test_unknown_command_lists_all(words, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['swinv2-mm', *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and 'usage: swinv2-mm' in capsys.readouterr().err


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
    words = shlex.split(line)
    program = words[1] if words[0] == 'python' else '-m swinv2_mm'
    environment = {
        **os.environ,
        # Which word is the program, counted from 1: the first may be the interpreter.
        '_ARGCOMPLETE': '2' if words[0] == 'python' else '1',
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
    command = f'{shlex.quote(sys.executable)} {program} 8>&1 9>/dev/null >/dev/null'
    done = subprocess.run(
        ['bash', '-c', command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [word.strip() for word in done.stdout.split('\n')]


@pytest.mark.parametrize(
    ('line', 'offered'),
    [
        ('python tools/train.py --res', ['--resume', '--resume-with']),
        ('python tools/train.py configs/classification/swinv2-nano-w8_d', [CONFIG]),
        ('python tools/train.py conf', ['configs/']),
        (f'python tools/train.py {CONFIG} --launcher s', ['slurm']),
        ('python tools/checkpoint.py conv', ['convert']),
        ('python tools/checkpoint.py convert a.pth b.pth --layout hug', ['huggingface']),
        ('python tools/analysis/plot.py bias --win', ['--windows']),
        ('python tools/dataset.py check --contact', ['--contact-sheet']),
        ('swinv2-mm che', ['check', 'checkpoint']),
        ('swinv2-mm train --res', ['--resume', '--resume-with']),
        ('swinv2-mm checkpoint conv', ['convert']),
    ],
)
def test_completion(line, offered):
    assert completions(line) == offered


def test_completion_offers_weights_and_folders_only(tmp_path):
    for name in ('iter_1.pth', 'iter_1.txt', 'iter_2.safetensors'):
        (tmp_path / name).touch()
    line = f'python {ROOT}/tools/test.py {ROOT}/{CONFIG} iter'
    assert sorted(completions(line, folder=tmp_path)) == ['iter_1.pth', 'iter_2.safetensors']


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='mallopt is of glibc')
@pytest.mark.parametrize(('variables', 'is_kept'), [({}, True), ({'MALLOC_ARENA_MAX': '2'}, False)])
def test_freed_memory_is_written_to_again_without_page_faults(variables, is_kept):
    """Of a command that runs a model on a CPU, unless the user has set how memory is allocated."""
    code = """
        import resource, torch
        from swinv2_mm.cli.running import keep_freed_memory

        keep_freed_memory()
        for _ in range(20):  # at first the heap grows around small tensors that stay
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(100 << 18)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)],
        env={**environment, 'CUDA_VISIBLE_DEVICES': '', **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    assert (int(result.stdout) < 1000) == is_kept, result.stdout
