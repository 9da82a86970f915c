"""Render several trainings side by side: scores, settings, curves, pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swinv2_mm.analysis.curves import Record
from swinv2_mm.datasets.palette import Colour
from swinv2_mm.errors import UserError

from .findings import PREDICTION, Example, Findings
from .page import curve_figures, fill_template
from .pictures import picture_section

_MOST_SETTINGS = 60
_NOTHING = '\N{EN DASH}'
_LONGEST_SETTING = 80
# Settings of where and how a training writes, which do not change its result.
_NOT_COMPARED = ('work_dir', 'load_from', 'visualizer', 'vis_backends', 'log_to')


@dataclass
class Run:
    """A training to compare.

    Attributes:
        name: Name of its work dir.
        cfg: Its config.
        records: Scalars of its log.
        findings: On the validation set.
        classes: Names.
    """

    name: str
    cfg: Config
    records: Sequence[Record]
    findings: Findings
    classes: Sequence[str]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart."""
    for number in range(1, max(len(folder.parts) for folder in folders)):
        names = ['/'.join(folder.parts[-number:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def render_comparison(
    runs: Sequence[Run], *, class_colours: Sequence[Colour], number_per_group: int
) -> str:
    """Return the page.

    Args:
        runs: At least two; the others are compared with the first.
        class_colours: One per class.
        number_per_group: How many pictures that differ most, and how many of the worst.

    Raises:
        UserError: If the runs are of other classes, tasks or images.
    """
    first = runs[0]
    for run in runs[1:]:
        if list(run.classes) != list(first.classes):
            raise UserError(f'{run.name} has other classes than {first.name}: nothing to compare')
        if run.findings.main_column != first.findings.main_column:
            raise UserError(f'{run.name} is of another task than {first.name}: nothing to compare')
        if [e.path for e in run.findings.examples] != [e.path for e in first.findings.examples]:
            raise UserError(
                f'{run.name} was validated on other images than {first.name}: give both the same '
                'val_dataloader by --cfg-options'
            )
    shown = picture_section(
        first.findings,
        _chosen(runs, number=number_per_group),
        classes=first.classes,
        class_colours=class_colours,
    )
    main = first.findings.columns.index(first.findings.main_column)
    return fill_template(
        'comparison.html',
        title=' / '.join(run.name for run in runs),
        names=[run.name for run in runs],
        scores=[
            (name, _with_differences([_number(run.findings.metrics.get(name, '')) for run in runs]))
            for name in first.findings.metrics
        ],
        settings=_settings_that_differ(runs),
        curves=curve_figures({run.name: run.records for run in runs}),
        by_class=[
            (name, _with_differences([float(run.findings.rows[label][main]) for run in runs]))
            for label, name in enumerate(first.classes)
        ],
        **shown,
    )


def _number(metric: str) -> float:
    try:
        return float(metric.split()[0])
    except (IndexError, ValueError):
        return math.nan


def _with_differences(values: Sequence[float]) -> list[tuple[str, str]]:
    cells = []
    for number, value in enumerate(values):
        text = _NOTHING if math.isnan(value) else f'{value:.1f}'
        difference = value - values[0]
        cells.append((text, f'{difference:+.1f}' if number and not math.isnan(difference) else ''))
    return cells


def _settings_that_differ(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    flat = [dict(_flat(run.cfg.to_dict())) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = []
    for key in keys:
        values = [settings.get(key, _NOTHING) for settings in flat]
        if len(set(values)) > 1 and not key.startswith(_NOT_COMPARED):
            rows.append((key, [(value[:_LONGEST_SETTING], '') for value in values]))
    return rows[:_MOST_SETTINGS]


def _flat(value: Any, prefix: str = '') -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        items = [(f'{prefix}.{key}' if prefix else str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
        items = [(f'{prefix}.{number}', part) for number, part in enumerate(value)]
    else:
        return [(prefix, repr(value))]
    return [pair for name, part in items for pair in _flat(part, name)]


def _chosen(runs: Sequence[Run], *, number: int) -> list[tuple[Example, str]]:
    """Choose the images on which the runs differ most, and those where all are bad."""
    rows = list(zip(*(run.findings.examples for run in runs), strict=True))
    scores = [[example.score for example in row] for row in rows]
    differing = sorted(range(len(rows)), key=lambda at: min(scores[at]) - max(scores[at]))[:number]
    rest = [at for at in range(len(rows)) if at not in differing]
    worst = sorted(rest, key=lambda at: sum(scores[at]))[:number]
    groups = (('most different', differing), ('worst', worst))
    return [(_side_by_side(runs, rows[at]), group) for group, found in groups for at in found]


def _side_by_side(runs: Sequence[Run], row: Sequence[Example]) -> Example:
    truth = {name: side for name, side in row[0].sides.items() if name != PREDICTION}
    guesses = {
        f'{run.name} ({example.score:.2f})': example.sides[PREDICTION]
        for run, example in zip(runs, row, strict=True)
    }
    title, *_ = truth
    return replace(
        row[0],
        score=sum(example.score for example in row) / len(row),
        labels=set().union(*(example.labels for example in row)),
        sides={title: truth[title], **guesses},
        missed='',
    )
