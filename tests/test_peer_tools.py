"""The tools of the other libraries, and ``python -m swinv2_mm.ops``, which runs them."""

import runpy
import sys

import peer_tools
import pytest


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['-m', *map(str, words)])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    runpy.run_module('swinv2_mm.ops', run_name='__main__')


def test_a_script_runs_with_its_arguments(tmp_path, monkeypatch, capsys):
    (tmp_path / 'beside.py').write_text('NUMBER = 7\n')
    script = tmp_path / 'script.py'
    script.write_text(
        'import sys, beside, mmcv.ops\nprint(__name__, beside.NUMBER, sys.argv[1:])\n'
    )
    run(monkeypatch, script, '--flag', 'CONFIG')
    assert capsys.readouterr().out == "__main__ 7 ['--flag', 'CONFIG']\n"


def test_a_tool_is_found_by_library_and_path(monkeypatch, capsys):
    pytest.importorskip('mmdet')
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, 'mmdet/misc/print_config.py', '--help')
    assert ended.value.code == 0 and 'Print the whole config' in capsys.readouterr().out


@pytest.mark.parametrize('words', [[], ['no/such.py'], ['mmengine/no_such_tool.py']])
def test_what_is_not_there_is_named(words, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *words)
    assert all(word in ended.value.code for word in words or ['usage'])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('peer_tools')
    peer_tools.prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ('library', 'title'),
    [(library, tool.title) for library, tools in peer_tools.TOOLS.items() for tool in tools],
)
def test_tool(library, title, trained):
    pytest.importorskip(library)
    (tool,) = (tool for tool in peer_tools.TOOLS[library] if tool.title == title)
    if tool.needs:
        pytest.importorskip(tool.needs)
    __import__(f'{library}.apis')
    works = peer_tools.rows_of_document(library)[title]
    error = peer_tools.attempt(tool, library, trained)
    assert (not error) == works, error or 'the document says that it does not work'


def test_the_tables_of_the_document_are_of_these_tools():
    for library, tools in peer_tools.TOOLS.items():
        assert list(peer_tools.rows_of_document(library)) == [tool.title for tool in tools]
