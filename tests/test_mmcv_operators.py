"""Operators of mmcv without its compiled ops: every row of the table of docs/operators.md."""

import sys

import mmcv_operators
import pytest
from mmcv_operators import OPERATORS, PLAIN, TOLERANCE

from swinv2_mm.ops.stand_in import build


@pytest.fixture(autouse=True)
def through_the_stand_in(monkeypatch):
    """What is tested is ours, even where mmcv is compiled."""
    for name, module in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', build())


@pytest.mark.parametrize('title', OPERATORS)
def test_operator(title):
    forward, gradient = OPERATORS[title].errors()
    assert forward <= TOLERANCE
    assert gradient is None or gradient <= TOLERANCE


def test_no_operator_that_a_model_needs_is_missing():
    covered = {name for operator in OPERATORS.values() for name in operator.names}
    assert set(mmcv_operators.users()) - covered - PLAIN == set()


def test_the_table_of_the_document_is_of_these_checks():
    assert mmcv_operators.rows_of_document() == list(OPERATORS)
