"""Define a problem of a data set, and group problems by kind for the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from swinv2_mm.datasets.files import shown

from .catalogue import CATALOGUE, LEARNT, Severity

SEVERITIES: tuple[Severity, ...] = ('error', 'warning', 'note')
MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a data set.

    Args:
        kind: Key of ``CATALOGUE``.
        file: File of the data set, or the config.
        place: What to look for in it: an image or annotation id, a line, a key; may be empty.
        detail: What stands there.
    """

    kind: str
    file: str
    place: str = ''
    detail: str = ''

    @property
    def severity(self) -> Severity:
        """Severity of the problem."""
        return CATALOGUE[self.kind].severity

    @property
    def is_refused(self) -> bool:
        """Whether training and testing cannot use the entry that has it."""
        return self.severity == 'error' and self.kind not in LEARNT

    @property
    def reason(self) -> str:
        """The problem with its detail, in one printable line."""
        detail = f' ({shown(self.detail)})' if self.detail else ''
        return CATALOGUE[self.kind].what + detail

    def __str__(self) -> str:
        place = f'{self.file}, {self.place}' if self.place else self.file
        return f'{place}: {self.detail}' if self.detail else place


@dataclass(kw_only=True)
class Finding:
    """All problems of one kind in one data set: their number, and the first few."""

    kind: str
    data_set: str
    count: int = 0
    examples: list[Problem] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """Severity of the problems."""
        return CATALOGUE[self.kind].severity

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        kind = CATALOGUE[self.kind]
        return {
            'severity': kind.severity,
            'kind': self.kind,
            'data_set': self.data_set,
            'what': kind.what,
            'remedy': kind.remedy,
            'count': self.count,
            'examples': [
                {'file': p.file, 'id': p.place, 'detail': p.detail} for p in self.examples
            ],
        }


class Findings:
    """The problems of several data sets; iterating gives the worst first."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, str], Finding] = {}

    def add(self, problems: Iterable[Problem], *, data_set: str) -> None:
        """Take problems of a data set.

        Raises:
            KeyError: If the catalogue lacks the kind of one.
        """
        for problem in problems:
            key = (data_set, problem.kind)
            if key not in self._by_kind:
                _ = CATALOGUE[problem.kind]
                self._by_kind[key] = Finding(kind=problem.kind, data_set=data_set)
            finding = self._by_kind[key]
            finding.count += 1
            if len(finding.examples) < MAX_EXAMPLES:
                finding.examples.append(problem)

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self._by_kind.values(), key=lambda f: SEVERITIES.index(f.severity)))

    def count(self, severity: Severity) -> int:
        """Return the number of problems of a severity, all kinds together."""
        return sum(f.count for f in self._by_kind.values() if f.severity == severity)
