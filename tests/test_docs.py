"""The documentation: every command and code block runs, every link leads somewhere.

The default run takes all Python blocks, and the commands of ``WHOLE``, within this process. The
slow run takes every block of every document, commands by bash. Both end with the totals.
"""

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from documents import PLACEHOLDERS, SHORT, Workplace, blocks_of, documents
from mmengine.config import Config
from PIL import Image
from tiny_data import write_data, write_pictures

from dev.tutorials import run_notebook
from swinv2_mm.cli import train
from swinv2_mm.cli.dispatch import COMMANDS

DOCUMENTS = [path for path in documents() if path.suffix == '.md']
NOTEBOOKS = [path for path in documents() if path.suffix == '.ipynb']
# Documents whose commands are quick enough for every run of the tests.
WHOLE = ('docs/custom_dataset.md',)
# All that the default run does: the others hold commands alone, or nothing.
QUICK = [
    path
    for path in DOCUMENTS
    if str(path) in WHOLE
    or any(block.language == 'python' and not block.not_run for block in blocks_of(path))
]
FLOWERS = ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')
SMALL_SETS = (
    'detection/cascade-mask-rcnn_swinv2-nano-w12_balloon.py',
    'detection/cascade-mask-rcnn_swinv2-nano-w12_facade.py',
    'segmentation/upernet_swinv2-nano-w8_facade.py',
)


@pytest.fixture(scope='session')
def document_data(digits_root, tmp_path_factory):
    """The demo's data set, and tiny ones in the places of the sets that documents speak of."""
    root = tmp_path_factory.mktemp('document_data')
    (root / 'digits').symlink_to(digits_root / 'digits')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWINV2_DATA', str(root))
        for name in SMALL_SETS:
            write_data(Config.fromfile(ROOT / 'configs' / name).to_dict())
    # Images of four channels, which OpenCV reads as they are.
    for split, number in (('train', 8), ('val', 2)):
        for name in ('field', 'forest'):
            folder = root / 'four_bands' / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                values = np.random.default_rng(index).integers(0, 255, (64, 64, 4), np.uint8)
                Image.fromarray(values).save(folder / f'{index}.png')
    for number, flower in enumerate(FLOWERS):
        write_pictures(root / 'flowers' / 'train' / flower, 4, first=4 * number)
        write_pictures(root / 'flowers' / 'val' / flower, 1, first=20 + number)
    return root


@pytest.fixture(scope='session')
def finished_run(document_data, tmp_path_factory):
    """A training of two iterations: what documents call CKPT, OTHER and WORK_DIR."""
    folder = tmp_path_factory.mktemp('finished_run')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWINV2_DATA', str(document_data))
        options = [*SHORT['IterBasedTrainLoop'], 'default_hooks.checkpoint.interval=1']
        train(ROOT / PLACEHOLDERS['CONFIG'], work_dir=folder, options=options)
    return folder


@pytest.fixture
def workplace(tmp_path, document_data, finished_run, monkeypatch):
    place = Workplace(tmp_path, document_data)
    monkeypatch.chdir(tmp_path)
    # As in a Python that was started there.
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv('SWINV2_DATA', str(document_data))
    for name in ('WORK_DIR', 'OTHER_WORK_DIR'):
        shutil.copytree(finished_run, PLACEHOLDERS[name])
    for name in ('street', 'roofs', 'birds'):
        shutil.copytree(document_data / 'digits', name)
    folder = Path(PLACEHOLDERS['FOLDER'])
    Image.open(folder / write_pictures(folder, 2)[0]).save(PLACEHOLDERS['IMAGE'])
    return place


@pytest.fixture
def counted(record_property, workplace):
    """What ran, for the summary at the end."""
    numbers = {'blocks': 0, 'commands': 0, 'not run': []}
    yield numbers
    record_property('document', {**numbers, 'rewritten': workplace.rewritten})


@pytest.mark.parametrize('document', QUICK, ids=str)
def test_python_blocks_and_quick_commands(document, workplace, tool, counted):
    namespace = {'__name__': '__main__'}
    for block in blocks_of(document):
        if block.not_run:
            counted['not run'].append(f'{block}: {block.not_run}')
        elif block.language == 'python':
            workplace.run_python(block, namespace)
            counted['blocks'] += 1
        elif str(document) in WHOLE:
            for command in block.commands():
                command, _, naming = workplace.prepared(command).partition(' && ')
                words = shlex.split(command)
                name = re.fullmatch(r'tools/(.*)\.py', words[1])[1]
                status, errors = tool(name, *words[2:])
                assert status == 0, f'{block}: {command}\n{errors}'
                subprocess.run(['bash', '-c', naming], check=True)
                counted['commands'] += 1
            counted['blocks'] += 1


@pytest.mark.slow
@pytest.mark.parametrize('document', DOCUMENTS, ids=str)
def test_every_block(document, workplace, counted):
    namespace = {'__name__': '__main__'}
    for block in blocks_of(document):
        if block.not_run:
            counted['not run'].append(f'{block}: {block.not_run}')
            continue
        if block.language == 'python':
            workplace.run_python(block, namespace)
        else:
            counted['commands'] += workplace.run_shell(block)
        counted['blocks'] += 1


@pytest.mark.slow
@pytest.mark.parametrize('document', NOTEBOOKS, ids=str)
def test_notebook(document, workplace, counted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(workplace.root))
        notebook = run_notebook(ROOT / document, cwd=workplace.root)
    counted['blocks'] += len(blocks_of(document))
    stored = nbformat.read(ROOT / document, as_version=4)
    # The same kinds of output at the same places: numbers and times may differ.
    assert [kinds_of(cell) for cell in notebook.cells] == [kinds_of(cell) for cell in stored.cells]
    if document.stem == 'windows':
        scores = dict(re.findall(r'window +(\d+): top-1 ([\d.]+) %', str(notebook.cells)))
        assert set(scores) == {'4', '8', '16'} and float(scores['8']) > 15  # guessing gives 10


def kinds_of(cell):
    """What a cell shows: streams and the types of results."""
    return {
        kind
        for output in cell.get('outputs', ())
        for kind in (output.get('data') or {output.get('name'): None})
        if kind != 'stderr'
    }


@pytest.mark.parametrize('document', NOTEBOOKS, ids=str)
def test_notebook_has_its_outputs_and_is_small(document):
    path = ROOT / document
    assert path.stat().st_size < 150_000
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) > 2 and not [o for o in outputs if o.output_type == 'error']
    assert 'image/' in str(outputs)
    # Nothing names the machine that it ran on.
    assert not re.search(r'/(work|home|root|tmp|Users)/', str(cells))


def test_leaves_for_own_data_are_short_and_fit_the_full_size_recipes(workplace, tool):
    document = Path('docs/custom_dataset.md')
    leaves = [block for block in blocks_of(document) if block.language == 'python']
    recipes = dict(re.findall(r'^\| `(\S+\.py)` \| `(\S+\.py)` \|', document.read_text(), re.M))
    assert len(recipes) == len(leaves) == 3
    for leaf in leaves:
        assert len(leaf.text.splitlines()) <= 12
        workplace.run_python(leaf, {})
        path = Path(leaf.text.splitlines()[0].removeprefix('# '))
        text, replaced = re.subn(
            r"^_base_ = '.*'", f"_base_ = '{recipes[path.name]}'", path.read_text(), flags=re.M
        )
        assert replaced == 1
        path.write_text(text)
        status, errors = tool('dataset', 'check', path, '--num-images', 2)
        assert status == 0, errors


def anchors(text):
    """The names that GitHub gives to headings."""
    headings = re.findall(r'^#+ (.+)$', re.sub(r'```.*?```', '', text, flags=re.S), re.M)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('document', documents(), ids=str)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding='utf-8')
    dead = []
    for target in re.findall(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"', text):
        target = ''.join(target)
        if re.match(r'\w+:', target):
            continue
        file, _, anchor = target.partition('#')
        path = (ROOT / document.parent / file) if file else ROOT / document
        if not path.exists():
            dead.append(target)
        elif anchor and anchor not in anchors(path.read_text(encoding='utf-8')):
            dead.append(target)
    assert not dead


def test_readmes_have_the_same_commands():
    english, chinese = (blocks_of(Path(name)) for name in ('README.md', 'README_zh-CN.md'))
    assert [(block.language, block.not_run) for block in english] == [
        (block.language, block.not_run) for block in chinese
    ]
    for ours, theirs in zip(english, chinese, strict=True):
        if ours.language == 'python':  # comments are translated
            assert ast.dump(ast.parse(ours.text)) == ast.dump(ast.parse(theirs.text))
        else:
            assert ours.commands() == theirs.commands()
    texts = [(ROOT / name).read_text(encoding='utf-8') for name in ('README.md', 'README_zh-CN.md')]
    # Names in the text, targets of links.
    for pattern in (r'`[^`\n]+`', r'\]\(([^)]+)\)'):
        ours, theirs = (set(re.findall(pattern, text)) for text in texts)
        assert ours ^ theirs <= {'README.md', 'README_zh-CN.md'}
    plain = [re.sub(r'```.*?```|`[^`]*`|\]\([^)]*\)', '', text, flags=re.S) for text in texts]
    # Levels of headings, columns of table rows, every number.
    for pattern in (r'^#+(?= )', r'^\|.*\|$', r'(?<![A-Za-z0-9_.])\d+(?:[.,]\d+)*'):
        ours, theirs = (re.findall(pattern, text, re.M) for text in plain)
        if pattern.endswith('$'):
            ours, theirs = ([row.count('|') for row in rows] for rows in (ours, theirs))
        elif not pattern.startswith('^'):
            ours, theirs = sorted(ours), sorted(theirs)
        assert ours == theirs and len(ours) > 9


def test_the_readme_has_every_command_and_the_page_on_installing_every_extra():
    (commands,) = re.findall(r'`swinv2-mm ((?:\w+\|)+\w+)`', (ROOT / 'README.md').read_text())
    assert commands.split('|') == list(COMMANDS)
    install = (ROOT / 'docs' / 'install.md').read_text()
    cells = re.findall(r'^\| ((?:`\w+`(?:, )?)+) \|', install, re.M)
    metadata = (ROOT / 'pyproject.toml').read_text()
    (extras,) = re.findall(r'optional-dependencies\]\n(.*?)\n\n', metadata, re.S)
    assert sorted(re.findall(r'\w+', ' '.join(cells))) == sorted(re.findall(r'^\w+', extras, re.M))


def test_the_readme_names_every_document():
    text = (ROOT / 'README.md').read_text() + (ROOT / 'docs' / 'README.md').read_text()
    for document in documents():
        assert document.name in text or document.name == 'README.md', document


def test_the_design_has_the_floors_that_the_linter_checks():
    settings = (ROOT / 'pyproject.toml').read_text()
    layers = ast.literal_eval(re.search(r'^layers = (\[.*?^\])', settings, re.M | re.S)[1])
    layers = [set(re.findall(r'\w+', layer)) for layer in layers]
    rows = re.findall(r'^\| (`.*?) \|', (ROOT / 'docs' / 'design.md').read_text(), re.M)
    floors = [set(re.findall(r'`(\w+)(?:\.py)?`', row)) for row in rows]
    assert floors[: len(layers) - 1] == layers[1:]  # the first is __main__, of one line


@pytest.mark.parametrize('document', ['docs/design.md', 'CONTRIBUTING.md'])
def test_named_files_exist(document):
    named = re.findall(r'`([\w.*-]*/[\w./*-]*|\w+\.(?:py|md|txt))`', (ROOT / document).read_text())
    assert len(named) > 10
    roots = (ROOT, ROOT / 'swinv2_mm')
    assert not [name for name in named if not any(list(root.glob(name)) for root in roots)]


def test_messages_of_the_page_on_troubleshooting_are_ours():
    text = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    tables = re.findall(r'<!-- messages -->\n(.*?)\n\n', text, re.S)
    messages = [m for table in tables for m in re.findall(r'^\| `(.+?)` \|', table, re.M)]
    assert len(messages) > 30
    said = '\n'.join(
        ''.join(part.value for part in parts if isinstance(part, ast.Constant))
        if isinstance(node, ast.JoinedStr)
        else node.value
        for path in (ROOT / 'swinv2_mm').rglob('*.py')
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        for parts in [getattr(node, 'values', ())]
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    )
    parts = [part for message in messages for part in message.split('...')]
    assert not [part for part in parts if part.strip("' ") not in said]


def test_every_question_has_its_thread():
    questions = re.split(r'^### ', (ROOT / 'docs' / 'faq.md').read_text(), flags=re.M)[1:]
    thread = re.compile(r'\]\(https://github\.com/[\w-]+/[\w-]+/issues/\d+\)')
    assert len(questions) >= 25
    assert not [text.splitlines()[0] for text in questions if not thread.search(text)]


def test_blocks_have_a_known_language_or_are_text():
    for document in DOCUMENTS:
        fences = re.findall(r'^\s*```(.*)$', (ROOT / document).read_text(encoding='utf-8'), re.M)
        assert set(fences[::2]) <= {'shell', 'python', 'text'}, document
        # A reader copies what is indented as well as what is fenced.
        text = re.sub(r'```.*?```', '', (ROOT / document).read_text(encoding='utf-8'), flags=re.S)
        assert not re.search(r'\n\n {4}(python|tools/|pip|make)', text), document
