"""What is known of a library stands in one table."""

import ast
import inspect

import pytest
from conftest import ROOT
from mmengine.registry import HOOKS, MODELS

import swinv2_mm.models  # noqa: F401
from swinv2_mm.errors import UserError
from swinv2_mm.libraries import LIBRARIES, imported, library_of

PACKAGE = ROOT / 'swinv2_mm'


def tables_of_libraries(source):
    """Lines of literals that name two of the libraries."""
    for node in ast.walk(ast.parse(source)):
        elements = node.keys if isinstance(node, ast.Dict) else getattr(node, 'elts', ())
        names = {e.value for e in elements if isinstance(e, ast.Constant)}
        if len(names & set(LIBRARIES)) > 1:
            yield node.lineno


@pytest.mark.parametrize(
    ('source', 'number'),
    [
        ("{'mmdet': 1, 'mmseg': 2}", 1),
        ("x in ('mmpretrain', 'mmdet')", 1),
        ("{'mmdet': 'mmseg'}", 0),
        ("['mmdet', 'mmcv']", 0),
    ],
)
def test_a_second_table_is_found(source, number):
    assert len(list(tables_of_libraries(source))) == number


def test_there_is_no_second_table():
    found = {
        f'{path.relative_to(PACKAGE)}:{line}'
        for path in sorted(PACKAGE.rglob('*.py'))
        if path != PACKAGE / 'libraries.py'
        for line in tables_of_libraries(path.read_text())
    }
    assert not found


@pytest.mark.parametrize('library', LIBRARIES.values(), ids=LIBRARIES)
def test_what_the_table_names_exists(library):
    with HOOKS.switch_scope_and_registry(library.scope) as registry:
        hook = registry.get(library.drawing_hook['type'])
    with MODELS.switch_scope_and_registry(library.scope) as registry:
        models = [registry.get(name) for name in library.exported_whole]
    arguments = {*library.drawing_hook, library.drawing_folder} - {'type', None}
    assert arguments <= set(inspect.signature(hook).parameters)
    assert None not in models
    merging = imported(library.tta_merging)
    assert callable(merging.merge) and callable(merging.mirror_back)
    assert inspect.isclass(imported(library.report_task))
    assert (ROOT / 'configs' / '_base_' / 'tta' / f'{library.task}.py').is_file()
    assert (ROOT / 'configs' / library.task).is_dir()


def test_a_library_that_is_not_known():
    assert library_of({'default_scope': 'mmseg'}, purpose='x').task == 'segmentation'
    with pytest.raises(UserError, match='--tta: default_scope mmocr is none of mmdet'):
        library_of({'default_scope': 'mmocr'}, purpose='--tta')
