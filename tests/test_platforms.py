"""What no test machine here shows: imports on Windows and macOS, by reading the source."""

import ast
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from swinv2_mm.cli.commands import env

# Modules and names that Windows lacks.
MODULES = {'fcntl', 'grp', 'posix', 'pty', 'pwd', 'resource', 'termios', 'tty', 'syslog'}
NAMES = {
    'signal': {'SIGUSR1', 'SIGUSR2', 'SIGHUP', 'SIGCHLD', 'SIGKILL', 'SIGPIPE', 'SIGQUIT', 'alarm'},
    'os': {'fork', 'getuid', 'geteuid', 'getpgid', 'killpg', 'setsid', 'sched_getaffinity', 'nice'},
    'select': {'poll', 'epoll', 'POLLHUP', 'POLLERR'},
}
# How code asks before it takes one of them.
GUARDS = ('hasattr(', 'find_spec(', 'sys.platform', 'os.name', 'ImportError', 'AttributeError')
DOCUMENTS = ('README.md', 'README_zh-CN.md', 'docs/platforms.md')
SOURCES = sorted(
    path
    for folder in ('swinv2_mm', 'projects', 'tools')
    for path in (ROOT / folder).rglob('*.py')
    if 'tests' not in path.relative_to(ROOT).parts
)


def unguarded(source):
    """What a module takes of POSIX where nothing in the function, or statement, asks for it."""
    found = []
    for statement in ast.parse(source).body:
        for block in _functions(statement):
            text = ast.unparse(block)
            if not any(guard in text for guard in GUARDS):
                found += _posix(block)
    return found


def _functions(statement):
    """Methods of a class one by one; any other statement as it is."""
    yield from statement.body if isinstance(statement, ast.ClassDef) else [statement]


def _posix(block):
    for node in ast.walk(block):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from [node.module] if node.module in MODULES else []
            names = NAMES.get(node.module, set())
            yield from (f'{node.module}.{a.name}' for a in node.names if a.name in names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, set()):
                yield f'{node.value.id}.{node.attr}'


def test_finds_what_is_not_guarded():
    source = """
import resource, sys
from os import fork
STOP = (signal.SIGTERM, signal.SIGUSR1)
ASKED = (signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, 'SIGUSR1') else []))
class Waiter:
    def wait(self):
        return select.poll()
    def ask(self):
        if sys.platform == 'linux':
            return select.poll()
try:
    import fcntl
except ImportError:
    fcntl = None
"""
    assert unguarded(source) == ['resource', 'os.fork', 'signal.SIGUSR1', 'select.poll']


def test_nothing_of_posix_is_taken_for_granted():
    assert len(SOURCES) > 200
    found = {
        path.relative_to(ROOT).as_posix(): names
        for path in SOURCES
        if (names := unguarded(path.read_text(encoding='utf-8')))
    }
    assert not found


def test_import_is_silent(tmp_path):
    """With every warning an error, those that a library raises for itself included."""
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', 'import swinv2_mm.core, swinv2_mm.models'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_python_versions_are_the_same_everywhere():
    """What pip takes is what is documented, and what the workflow tests."""
    oldest, newest = env._OLDEST, env._NEWEST
    versions = [f'3.{minor}' for minor in range(oldest[1], newest[1] + 1)]
    project = (ROOT / 'pyproject.toml').read_text()
    assert f'requires-python = ">=3.{oldest[1]},<3.{newest[1] + 1}"' in project
    assert re.findall(r'Python :: (3\.\d+)"', project) == versions
    workflow = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
    assert workflow['jobs']['tests']['strategy']['matrix']['python'] == versions
    sources = ('swinv2_mm/__init__.py', 'tools/make_env.sh', 'docs/install.md')
    for name in (*sources, *DOCUMENTS):
        found = re.findall(r'(3\.\d+) (?:to|至) (3\.\d+)', (ROOT / name).read_text())
        assert found and set(found) == {(versions[0], versions[-1])}, name


def test_torch_versions_are_the_same_everywhere():
    oldest, bound = re.search(
        r'^torch>=(\S+),<(\S+)$', (ROOT / 'requirements/core.txt').read_text(), re.MULTILINE
    ).groups()
    newest = f'2.{int(bound.split(".")[1]) - 1}'
    workflow = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
    tested = workflow['jobs']['stack']['strategy']['matrix']['torch']
    assert tested[0].startswith(f'{oldest}.') and tested[-1].startswith(f'{newest}.')
    for name in DOCUMENTS:
        found = re.findall(r'torch (\S+) (?:to|至) (\d+\.\d+)', (ROOT / name).read_text())
        assert found == [(oldest, newest)], name


def refusal_of_environment(python):
    """What ``make_env.sh`` says with an interpreter that cannot make one."""
    done = subprocess.run(
        ['bash', str(ROOT / 'tools/make_env.sh'), str(python.parent / 'venv')],
        env={'PYTHON': str(python), 'PATH': '/usr/bin:/bin'},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    return done.stderr.splitlines()


@pytest.mark.parametrize(('version', 'is_taken'), [('3.9', 0), ('3.15', 0), ('3.13', 1)])
def test_interpreter_out_of_range_gives_one_sentence(version, is_taken, tmp_path):
    """``make_env.sh`` with an interpreter that calls itself another version."""
    major, minor = version.split('.')
    python = tmp_path / 'python'
    python.write_text(
        f'#!{sys.executable}\n'
        'import sys\n'
        "if sys.argv[1] == '-c':\n"
        f'    sys.version_info = ({major}, {minor}, 0)\n'
        '    exec(sys.argv[2])\n'
        "else: sys.exit('no further')\n"
    )
    python.chmod(0o755)
    lines = refusal_of_environment(python)
    refusals = [line for line in lines if 'is not supported' in line]
    assert len(refusals) == 1 - is_taken
    assert all(f'Python {version}.0' in line and '3.10 to 3.14' in line for line in refusals)


def test_interpreter_that_does_not_run_gives_one_sentence(tmp_path):
    """As pyenv's names of versions that are not the chosen one."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nexit 127\n')
    python.chmod(0o755)
    (line,) = refusal_of_environment(python)
    assert line.startswith('error:') and 'does not run' in line and 'PYTHON=' in line


def test_custom_operators_have_types_that_the_oldest_torch_knows():
    """torch 2.6 could not import the package: it takes no ``list[int]`` for a parameter."""
    checked = 0
    for path in (ROOT / 'swinv2_mm').rglob('*.py'):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(
                'custom_op(' in ast.unparse(decorator) for decorator in function.decorator_list
            ):
                found = [ast.unparse(argument.annotation) for argument in function.args.args]
                assert not [kind for kind in found if kind.startswith('list[')], function.name
                checked += 1
    assert checked > 8
