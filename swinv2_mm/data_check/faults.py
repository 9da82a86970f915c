"""What cannot be used of an annotation file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from swinv2_mm.datasets.files import shown

from .catalogue import CATALOGUE

# Those after which an entry can be learnt from are left to `tools/dataset.py check`.
_HARMLESS = {'annotation-repeated', 'annotation-id-zero', 'mask-box-disagree'}


class Fault(NamedTuple):
    """One entry that cannot be used; ``kind`` is a key of the catalogue of faults."""

    kind: str
    place: str
    detail: str

    @property
    def reason(self) -> str:
        """What is wrong, in words."""
        detail = f' ({shown(self.detail)})' if self.detail else ''
        return CATALOGUE[self.kind].what + detail


@dataclass
class Screened:
    """A file that was looked over.

    Attributes:
        content: What can be used of it: the lists of a COCO file, or the lines of a text.
        faults: Of what cannot.
        with_masks: Whether masks count.
    """

    content: Any
    faults: list[Fault] = field(default_factory=list)
    with_masks: bool = True

    def report(self, kind: str, file: object = '', *, id: object = '', detail: str = '') -> None:
        """Take a fault as the readers report it; ``file`` is known."""
        is_harmless = CATALOGUE[kind].severity != 'error' or kind in _HARMLESS
        if not is_harmless and (self.with_masks or not kind.startswith('mask-')):
            self.faults.append(Fault(kind, str(id), detail))
