"""Recipes have the values of their sources, in the composed config, or say what differs."""

import numbers

import pytest
import yaml
from conftest import ROOT

from swinv2_mm.config.file import load_config
from swinv2_mm.core.architectures import resolve_architecture

SOURCES = yaml.safe_load((ROOT / 'dev' / 'recipe_sources.yml').read_text())


def value_of(cfg, key):
    """Follow a dotted key; in a list, a part is a number or the type of the one item meant."""
    if key.startswith('arch.'):
        return getattr(resolve_architecture(cfg.model.backbone.arch), key.removeprefix('arch.'))
    node = cfg
    for part in key.split('.'):
        if isinstance(node, (list, tuple)):
            if part.isdecimal():
                node = node[int(part)]
            else:
                (node,) = [item for item in node if item['type'].endswith(part)]
        else:
            node = node[part]
    return node


def plain(value):
    """Return tuples as lists and numbers as floats, rounded to nine digits."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(f'{value:.9g}')
    return value


def test_there_are_enough_rows():
    assert sum(map(len, SOURCES.values())) >= 150
    for leaf, rows in SOURCES.items():
        keys = [row['key'] for row in rows]
        assert len(set(keys)) == len(keys), leaf


@pytest.mark.parametrize('leaf', SOURCES)
def test_composed_config_has_the_values_of_its_source(leaf):
    cfg = load_config(str(ROOT / leaf))
    comments = [line for line in (ROOT / leaf).read_text().splitlines() if line.startswith('#')]
    for row in SOURCES[leaf]:
        assert plain(value_of(cfg, row['key'])) == plain(row['ours']), row['key']
        assert row['where']
        if plain(row['ours']) == plain(row['source']):
            assert row.keys() == {'key', 'ours', 'source', 'where'}, row['key']
        else:
            # A deviation has a reason, and the leaf says so itself.
            assert row['reason'], row['key']
            assert any(row['header'] in line for line in comments), row['header']


def test_a_changed_value_is_noticed():
    leaf = 'configs/classification/swinv2-t-w8_16xb64_in1k-256.py'
    cfg = load_config(str(ROOT / leaf))
    row = next(row for row in SOURCES[leaf] if row['key'] == 'optim_wrapper.optimizer.lr')
    cfg.optim_wrapper.optimizer.lr *= 1.001
    assert plain(value_of(cfg, row['key'])) != plain(row['ours'])
    with pytest.raises(ValueError, match='unpack'):
        value_of(cfg, 'param_scheduler.NoSuchLR.end')
