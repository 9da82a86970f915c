"""A weight layout: its table of parameter names, and the rules that it compiles to.

Our names are the official ones, except for the output norms ``norm0`` to ``norm3``. In a table,
``{last}`` is the index of the last stage, whose norm classification models call ``norm``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swinv2_mm.core.numerics import NumericsName

from .rules import UNCHANGED, Conversion, Rule, Template


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        own: Our name, or names.
        foreign: The layout's name, or names.
        conversion: How values change.
        with_write: Whether the row is used for writing too, not only for reading.
    """

    own: str | tuple[str, ...]
    foreign: str | tuple[str, ...]
    conversion: Conversion = UNCHANGED
    with_write: bool = True


@dataclass(frozen=True)
class Layout:
    """A way to name and arrange the weights.

    Attributes:
        name: Its name, as in ``LAYOUTS``.
        stem: Name of the patch embedding's weight. What precedes it in a file is the prefix of
            the whole backbone.
        table: Rows in order; the first that covers a name counts.
        has_final_norm: Whether such weights have a norm after the last stage.
        extras: Beginnings of names that are known but not part of the backbone, with what they
            are. (Names outside the backbone's prefix need no entry.)
        numerics: Numerics that such weights were trained with, unless they say otherwise.
    """

    name: str
    stem: str
    table: tuple[Row, ...]
    extras: tuple[tuple[str, str], ...] = ()
    has_final_norm: bool = True
    numerics: NumericsName = 'official'

    def reading_rules(self, *, num_stages: int) -> tuple[Rule, ...]:
        """Return the rules from this layout to our names."""
        return _compiled(self.table, num_stages=num_stages, writing=False)

    def writing_rules(self, *, num_stages: int) -> tuple[Rule, ...]:
        """Return the rules from our names to this layout."""
        return _compiled(self.table, num_stages=num_stages, writing=True)


@lru_cache(maxsize=64)
def _compiled(table: tuple[Row, ...], *, num_stages: int, writing: bool) -> tuple[Rule, ...]:
    def templates(names: str | tuple[str, ...]) -> tuple[Template, ...]:
        names = (names,) if isinstance(names, str) else names
        return tuple(Template(name.replace('{last}', str(num_stages - 1))) for name in names)

    rules = []
    for row in table:
        own, foreign = templates(row.own), templates(row.foreign)
        if not writing:
            rules.append(Rule(foreign, own, row.conversion.read))
        elif row.with_write:
            rules.append(Rule(own, foreign, row.conversion.write))
    return tuple(rules)


# The extra tensors of most classifiers.
HEAD = ('head.', 'classification head')


def _merged_qkv(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor]:
    return (torch.cat((query, key, value)),)


def _separate_qkv(qkv: Tensor) -> tuple[Tensor, ...]:
    return qkv.unflatten(0, (3, -1)).unbind()


JOINED_QKV = Conversion(_merged_qkv, _separate_qkv)
