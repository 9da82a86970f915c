"""Rename parameters and convert their values by rules, in both directions.

A rule says which names of one layout are which names of another. Names are templates:
``{i}`` stands for a whole number, ``{i+1}`` and ``{2i+1}`` for one computed from it,
``{leaf}`` for ``weight`` or ``bias`` and ``{rest}`` for anything. Variables are shared between
both sides of a rule, so that every rule can be read from left to right and back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from .errors import CheckpointError

# One tensor per name of one side -> one tensor per name of the other side.
Transform = Callable[..., tuple[Tensor, ...]]
Bindings = tuple[tuple[str, str | int], ...]

_VARIABLE = re.compile(r'\{(\d*)([a-z]+)(?:\+(\d+))?\}')
_WORDS = {'leaf': 'weight|bias', 'rest': '.+'}


class Template:
    """A name with variables.

    Args:
        text: See the module's docstring.
    """

    def __init__(self, text: str) -> None:
        self._fixed: list[str] = []
        self._variables: list[tuple[str, int, int]] = []
        position = 0
        pattern = ''
        for found in _VARIABLE.finditer(text):
            factor, name, offset = found.groups()
            self._fixed.append(text[position : found.start()])
            self._variables.append((name, int(factor or 1), int(offset or 0)))
            # Canonical numbers only: '01' would not survive the way back.
            pattern += re.escape(self._fixed[-1]) + f'({_WORDS.get(name, "0|[1-9][0-9]{0,5}")})'
            position = found.end()
        self._fixed.append(text[position:])
        self._pattern = re.compile(pattern + re.escape(self._fixed[-1]))

    def match(self, name: str) -> Bindings | None:
        """Return the values of the variables, or ``None`` if ``name`` is another one."""
        found = self._pattern.fullmatch(name)
        if found is None:
            return None
        bindings: dict[str, str | int] = {}
        for text, (variable, factor, offset) in zip(found.groups(), self._variables, strict=True):
            value: str | int = text
            if variable not in _WORDS:
                value, remainder = divmod(int(text) - offset, factor)
                if remainder or value < 0:
                    return None
            if bindings.setdefault(variable, value) != value:
                return None
        return tuple(sorted(bindings.items()))

    def fill(self, bindings: Bindings) -> str:
        """Return the name for given values of the variables."""
        values = dict(bindings)
        parts = [self._fixed[0]]
        for (variable, factor, offset), fixed in zip(self._variables, self._fixed[1:], strict=True):
            value = values[variable]
            parts.append(value if isinstance(value, str) else str(factor * value + offset))
            parts.append(fixed)
        return ''.join(parts)


class Conversion(NamedTuple):
    """How values change between two layouts: tensors in the order of the rule's names."""

    read: Transform
    write: Transform


def unchanged(*values: Tensor) -> tuple[Tensor, ...]:
    """The transform of a rule that only renames."""
    return values


UNCHANGED = Conversion(unchanged, unchanged)


@dataclass(frozen=True)
class Rule:
    """Names that correspond, and how to get the values of one side from those of the other.

    Attributes:
        sources: The names to translate. All must be there for the rule to apply.
        targets: What they become.
        transform: Takes one tensor per source and returns one per target.
    """

    sources: tuple[Template, ...]
    targets: tuple[Template, ...]
    transform: Transform


@dataclass
class Translation:
    """Weights under new names.

    Attributes:
        values: New name to tensor.
        origins: New name to the old names that it was made of.
        unmatched: Old names that no rule covers, or whose counterparts are not there.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


def translate(weights: Mapping[str, Tensor], *, rules: Sequence[Rule]) -> Translation:
    """Apply, to each name, the first rule that covers it.

    Raises:
        CheckpointError: If two names give the same result, or a value has a shape that cannot
            be converted.
    """
    groups: dict[tuple[int, Bindings], dict[int, str]] = {}
    result = Translation()
    for name in weights:
        covered = _first_match(name, rules=rules)
        if covered is None:
            result.unmatched.append(name)
            continue
        number, position, bindings = covered
        groups.setdefault((number, bindings), {})[position] = name
    for (number, bindings), found in groups.items():
        rule = rules[number]
        if len(found) < len(rule.sources):
            result.unmatched += found.values()
            continue
        names = tuple(found[position] for position in range(len(rule.sources)))
        targets = [template.fill(bindings) for template in rule.targets]
        for target in targets:
            if target in result.values:
                both = ' and '.join((*result.origins[target], *names))
                raise CheckpointError(f'{both} are the same parameter twice ({target})')
        if len({weights[name].dtype for name in names}) > 1:
            types = ', '.join(f'{name} {weights[name].dtype}' for name in names)
            raise CheckpointError(f'these belong together and differ in type: {types}')
        try:
            values = rule.transform(*(weights[name] for name in names))
        except (RuntimeError, ValueError, IndexError):
            shapes = ', '.join(f'{name} {tuple(weights[name].shape)}' for name in names)
            raise CheckpointError(f'unusable shape: {shapes}') from None
        for target, value in zip(targets, values, strict=True):
            result.values[target] = value
            result.origins[target] = names
    return result


def _first_match(name: str, *, rules: Sequence[Rule]) -> tuple[int, int, Bindings] | None:
    for number, rule in enumerate(rules):
        for position, template in enumerate(rule.sources):
            bindings = template.match(name)
            if bindings is not None:
                return number, position, bindings
    return None
