"""Format the result of a dataset validation as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swinv2_mm.atomic_write import atomic_write

from .catalogue import CATALOGUE
from .listing import Listing
from .problems import SEVERITIES, Finding
from .survey import Survey

# A table of a thousand classes would bury the findings.
_MAX_CLASSES = 40
_NAME_WIDTH = 28


def as_text(survey: Survey) -> str:
    """Format a survey as text, the findings last: they stay on the screen."""
    lines = [f'{d.source.name}: {_summary(d)}' for d in survey.data_sets]
    lines += _balance_table(survey.data_sets)
    for finding in survey.findings:
        lines += _paragraph(finding)
    counts = {s: survey.findings.count(s) for s in SEVERITIES}
    lines += ['', ', '.join(f'{n} {s}{"" if n == 1 else "s"}' for s, n in counts.items())]
    return '\n'.join(lines)


def as_dict(survey: Survey) -> dict[str, Any]:
    """Turn a survey into what JSON can hold."""
    return {
        'config': survey.config,
        'data_sets': [
            {
                'name': d.source.name,
                'type': d.source.type_name,
                'annotation_file': str(d.source.annotation_file or ''),
                'folders': {k: str(p) for k, p in d.source.folders.items()},
                'num_images': len(d.entries),
                'num_opened': d.num_opened,
                'unit': d.unit,
                'labels_per_class': {n: d.counts[n] for n in d.classes},
            }
            for d in survey.data_sets
        ],
        'findings': [finding.as_dict() for finding in survey.findings],
        'num_errors': survey.findings.count('error'),
        'num_warnings': survey.findings.count('warning'),
        'num_notes': survey.findings.count('note'),
    }


def write_json(survey: Survey, path: Path) -> None:
    """Write a survey as JSON."""
    atomic_write(path, json.dumps(as_dict(survey), indent=2) + '\n')


def _summary(listing: Listing) -> str:
    source = listing.source
    where = source.annotation_file or source.folders.get('img_path', '')
    opened = '' if listing.num_opened == len(listing.entries) else f', {listing.num_opened} opened'
    labels = '' if listing.unit in ('images', 'pixels') else (
        f', {listing.counts.total()} {listing.unit}'
    )  # fmt: skip
    return (
        f'{source.type_name}, {where}: {len(listing.entries)} images{opened}{labels}, '
        f'{len(listing.classes)} class{"" if len(listing.classes) == 1 else "es"}'
    )


def _balance_table(data_sets: list[Listing]) -> Iterator[str]:
    """Labels per class, one column per data set, in the order of the first one."""
    names = list(dict.fromkeys(n for d in data_sets for n in d.classes))
    if not names:
        return
    widths = [max(12, len(d.source.name) + 2) for d in data_sets]
    units = '/'.join(dict.fromkeys(d.unit for d in data_sets))
    columns = zip(data_sets, widths, strict=True)
    yield ''
    yield f'{units + " per class":{_NAME_WIDTH}}' + ''.join(
        f'{d.source.name:>{w}}' for d, w in columns
    )
    for name in names[:_MAX_CLASSES]:
        cells = [_cell(d, name).rjust(w) for d, w in zip(data_sets, widths, strict=True)]
        yield f'{name[: _NAME_WIDTH - 1]:{_NAME_WIDTH}}' + ''.join(cells)
    if len(names) > _MAX_CLASSES:
        yield f'... and {len(names) - _MAX_CLASSES} more (--out writes all)'


def _cell(listing: Listing, name: str) -> str:
    counts = listing.counts
    if listing.unit == 'pixels':
        return f'{100 * counts[name] / max(counts.total(), 1):.2f} %'
    return str(counts[name])


def _paragraph(finding: Finding) -> Iterator[str]:
    kind = CATALOGUE[finding.kind]
    yield ''
    yield f'{kind.severity}: {finding.data_set}: {finding.count} x {kind.what} [{finding.kind}]'
    for example in finding.examples:
        yield f'    {example}'
    if finding.count > len(finding.examples):
        yield f'    ... and {finding.count - len(finding.examples)} more'
    yield f'    fix: {kind.remedy}'
