"""The tables of docs/model_zoo.md and docs/recipes.md are those that dev/doc_tables.py writes."""

import pytest
from conftest import ROOT

from dev.doc_tables import CHOSEN, estimated_memory, kept_memory, pages
from dev.made_parts import with_made_parts
from swinv2_mm.checkpoint import RELEASED
from swinv2_mm.data_check.leaf import RECIPES, SMALL_RECIPES
from swinv2_mm.errors import UserError


def test_the_pages_are_up_to_date():
    for path, text in pages(kept_memory()).items():
        assert path.read_text() == text, 'run python -m dev.doc_tables'


def test_every_released_model_and_every_recipe_of_new_has_a_row():
    zoo = (ROOT / 'docs/model_zoo.md').read_text()
    assert [name for name in RELEASED if zoo.count(f'| `{name}` |') != 1] == []
    assert len(set(CHOSEN)) == len(CHOSEN)
    chosen = {f'{name}.py' for name in CHOSEN}
    small = {name for kind, name in SMALL_RECIPES.items() if kind != 'boxes'}
    assert small | set(RECIPES.values()) <= chosen


def test_a_page_without_a_place_for_a_table():
    with pytest.raises(UserError, match='sizes'):
        with_made_parts('nothing', {'sizes': []})


@pytest.mark.slow
def test_memory_is_what_the_tool_estimates():
    for name in (CHOSEN[0], CHOSEN[5]):
        assert estimated_memory(name) == kept_memory()[name]
