"""Jobs and facts that have one place in the package."""

import ast
import re
from pathlib import Path

import pytest

from swinv2_mm.cli.dispatch import COMMANDS
from swinv2_mm.config.entries import ENTRIES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'swinv2_mm'
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for folder in ('swinv2_mm', 'tools', 'projects', 'benchmarks', 'dev')
    for path in sorted((ROOT / folder).rglob('*.py'))
    if not {'tests', 'configs', '.mim'} & set(path.relative_to(ROOT).parts)
}

# What is looked for, as a pattern of source text, and the files that may hold it.
PLACES = {
    'pointer to the newest checkpoint': (r"'last_checkpoint'", {'checkpoint/reading.py'}),
    'name of the best checkpoint': (r"'best_'", {'engine/work_dir.py'}),
    'orientation by EXIF': (r'exif_transpose\(', {'datasets/image_files.py'}),
    'suffixes of images': (r"'\.webp'|'\.tiff'", {'datasets/image_files.py'}),
    'colours of classes': (r'\bcolorsys\.|hsv_to_rgb', {'datasets/palette.py'}),
    'number of classes of a model': (r"getattr\([^)]*'num_classes'", {'models/class_count.py'}),
    'names of wrappers of a model': (r'_orig_mod', {'core/unwrapping.py'}),
    'search for backbones': (
        r'for \w+ in .*\.modules\(\) if isinstance\(.*SwinTransformerV2',
        {'checkpoint/loading.py'},
    ),
    'atomic write': (
        r'os\.(replace|rename|fsync)\(|\bmkstemp|NamedTemporaryFile',
        {'atomic_write.py'},
    ),
    # A picture or label map counts only once its line is in the list of records.
    'writing of files': (
        r'\.write_(text|bytes)\(',
        {'atomic_write.py', 'inference/output_folder.py'},
    ),
    'hooks and tasks of the libraries': (
        r"'(Det|Seg)?VisualizationHook'|'(Detection|Segmentation|Classification)Task'",
        {'libraries.py'},
    ),
}  # fmt: skip


@pytest.mark.parametrize('job', PLACES)
def test_one_place(job):
    pattern, places = PLACES[job]
    expected = {f'swinv2_mm/{place}' for place in places}
    found = {name for name, source in SOURCES.items() if re.search(pattern, source)}
    if job == 'writing of files':
        found = {name for name in found if name.startswith('swinv2_mm/')}
    assert found == expected


def test_own_entries_are_read_through_their_table():
    readers = {
        name: [
            ast.unparse(call)
            for call in ast.walk(ast.parse(source))
            if isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr == 'get'
            and ast.unparse(call.func.value).endswith('cfg')
            and isinstance(call.args[0], ast.Constant)
            and call.args[0].value in ENTRIES
        ]
        for name, source in SOURCES.items()
        if name != 'swinv2_mm/config/entries.py'
    }
    assert not {name: calls for name, calls in readers.items() if calls}


def test_every_command_is_in_the_table():
    modules = {path.stem for path in (PACKAGE / 'cli' / 'commands').glob('*.py')}
    assert modules - {'__init__'} == COMMANDS.keys()
