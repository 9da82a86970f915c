"""What was found, collected so that ten thousand faults of a kind take five lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .catalogue import CATALOGUE

SEVERITIES = ('error', 'warning', 'note')
MAX_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Example:
    """One place.

    Args:
        file: Of the data set, or the config.
        id: What to look for in it: an image or annotation id, a line, a key; may be empty.
        detail: What stands there.
    """

    file: str
    id: str = ''
    detail: str = ''

    def __str__(self) -> str:
        place = f'{self.file}, {self.id}' if self.id else self.file
        return f'{place}: {self.detail}' if self.detail else place


@dataclass(kw_only=True)
class Finding:
    """All faults of one kind in one data set; ``kind`` is a key of the catalogue."""

    kind: str
    data_set: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def severity(self) -> Literal['error', 'warning', 'note']:
        """How bad it is."""
        return CATALOGUE[self.kind].severity

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kind = CATALOGUE[self.kind]
        return {
            'severity': kind.severity,
            'kind': self.kind,
            'data_set': self.data_set,
            'what': kind.what,
            'remedy': kind.remedy,
            'count': self.count,
            'examples': [asdict(example) for example in self.examples],
        }


class Findings:
    """A collector; iterating gives the worst first."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, str], Finding] = {}

    def add(
        self, kind: str, *, data_set: str, file: object, id: object = '', detail: str = ''
    ) -> None:
        """Note one fault.

        Raises:
            KeyError: If the catalogue has no such kind.
        """
        finding = self._by_kind.get((data_set, kind))
        if finding is None:
            _ = CATALOGUE[kind]
            finding = self._by_kind[data_set, kind] = Finding(kind=kind, data_set=data_set)
        finding.count += 1
        if len(finding.examples) < MAX_EXAMPLES:
            finding.examples.append(Example(file=str(file), id=str(id), detail=detail))

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self._by_kind.values(), key=lambda f: SEVERITIES.index(f.severity)))

    def count(self, severity: str) -> int:
        """Number of faults of a severity, all kinds together."""
        return sum(f.count for f in self._by_kind.values() if f.severity == severity)


class Reporter:
    """Notes the faults of one data set."""

    def __init__(self, findings: Findings, *, data_set: str) -> None:
        self.findings = findings
        self.data_set = data_set

    def __call__(self, kind: str, file: object, *, id: object = '', detail: str = '') -> None:
        """Note one fault; see ``Findings.add``."""
        self.findings.add(kind, data_set=self.data_set, file=file, id=id, detail=detail)
