"""The tables of docs/model_families.md: whole, and some of their families measured again."""

import pytest
from model_families import DOCUMENT, LIBRARIES, REASONS, STEPS, families, measure

# One of each kind: an operator of its own, a transformer, queries, a list of heads, views.
AGAIN = (
    'mmdet/carafe', 'mmdet/dino', 'mmdet/mask2former', 'mmdet/guided_anchoring', 'mmseg/psanet',
    'mmseg/upernet', 'mmseg/ocrnet', 'mmpretrain/simclr', 'mmpretrain/resnet',
)  # fmt: skip


def rows(library):
    """Name of the family, to its backbone and what works."""
    text = DOCUMENT.read_text().split(f'<!-- table: {library} -->\n')[1]
    lines = text.split('<!-- end of table -->')[0].splitlines()
    cells = [line.strip('| ').split(' | ') for line in lines if line.startswith('| ')][1:]
    return {row[0]: (row[2], [cell == 'yes' for cell in row[3:6]]) for row in cells}


@pytest.mark.parametrize('library', LIBRARIES)
def test_every_family_is_in_the_table(library):
    pytest.importorskip(library)
    found = rows(library)
    assert list(found) == families(library)
    failing = {f'{library}/{name}' for name, (_, works) in found.items() if not all(works)}
    assert failing == {name for name in REASONS if name.startswith(f'{library}/')}


def test_the_counts_are_those_of_the_tables():
    counts = DOCUMENT.read_text().split('<!-- table: counts -->\n')[1].splitlines()[2:]
    total = [0] * 5
    for library, line in zip(LIBRARIES, counts, strict=False):
        found = rows(library).values()
        numbers = [len(found), sum(backbone == 'SwinV2' for backbone, _ in found)]
        numbers += [sum(works[i] for _, works in found) for i in range(len(STEPS))]
        cells = [cell.split()[0] for cell in line.strip('| ').split(' | ')]
        assert cells == [library, *map(str, numbers)]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
    cells = [cell.split()[0] for cell in counts[3].strip('| ').split(' | ')]
    assert cells[1:] == list(map(str, total))


@pytest.mark.slow
@pytest.mark.parametrize('family', AGAIN)
def test_family(family):
    library, _, name = family.partition('/')
    pytest.importorskip(library)
    row = measure(family)
    backbone, works = rows(library)[name]
    assert row.get('error') is None, row['trace']
    assert (row['backbone'], [bool(row.get(step)) for step in STEPS]) == (backbone, works)
