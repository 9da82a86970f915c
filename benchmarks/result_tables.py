"""Format the results of a comparison as a table and as plain data for a file."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from .cases import Case
from .memory_use import MemoryUse
from .steps import LIMIT, Setting
from .timing import Outcome, Spread, ratios

_MIB = 2**20


def result_of(outcomes: Sequence[Outcome], *, case: Case, setting: Setting) -> dict:
    """Put all figures of a case into plain data.

    Times are in seconds of a step, memory in bytes; a ratio is the time of a candidate over that
    of the first.
    """
    base = outcomes[0]
    limit = next((o for o in outcomes if o.name == LIMIT), None)
    rows = []
    for outcome in outcomes:
        share = limit and ratios(limit, base=outcome)
        rows.append(
            {
                'name': outcome.name,
                'cannot': outcome.reason,
                'seconds': _plain(Spread.of(outcome.seconds) if outcome.seconds else None),
                'ratio': _plain(ratios(outcome, base=base)),
                'share_of_limit': share.median if share else None,
                'memory': _plain(outcome.memory),
                'difference': outcome.difference,
                'rounds': outcome.seconds,
            }
        )
    return {
        'case': case.name,
        'arch': asdict(case.arch),
        'size_px': case.size_px,
        'window': case.window,
        'batch': case.batch,
        'mode': setting.mode,
        'dtype': setting.dtype,
        'compiled': setting.is_compiled,
        'device': setting.device.type,
        'rows': rows,
    }


def _plain(figures: Spread | MemoryUse | None) -> dict | None:
    return None if figures is None else asdict(figures)


def table_of(result: dict) -> Table:
    """Lay a case out for reading."""
    height, width = result['size_px']
    how = 'compiled' if result['compiled'] else 'eager'
    table = Table(
        title=(
            f'{result["case"]}: {result["mode"]}, {result["dtype"]}, {how}, {result["batch"]} x '
            f'{height} x {width} px'
        ),
        title_justify='left',
    )
    kinds = ('peak',) if result['device'] == 'cuda' else ('saved', 'tensors', 'resident')
    table.add_column('')
    for head in ('ms', 'time / first', 'of limit', *(f'{kind} MiB' for kind in kinds), 'diff'):
        table.add_column(head, justify='right')
    for row in result['rows']:
        if row['cannot']:
            table.add_row(row['name'], f'cannot: {escape(row["cannot"])}')
            continue
        seconds, ratio, memory = row['seconds'], row['ratio'], row['memory'] or {}
        table.add_row(
            row['name'],
            _text(seconds and 1000 * seconds['median'], '.1f'),
            f'{ratio["median"]:.2f} ({ratio["low"]:.2f}-{ratio["high"]:.2f})' if ratio else '-',
            _text(row['share_of_limit'], '.0%'),
            *(_text(memory.get(k) and memory[k] / _MIB, ',.0f') for k in kinds),
            _text(row['difference'], '.0e'),
        )
    return table


def _text(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)


def growth_exponents(results: Sequence[dict]) -> dict[str, float]:
    """Fit how the time of an image grows with its pixels, where sizes alone differ.

    Returns:
        The exponent by what was run; 1 is linear growth.
    """
    points = defaultdict(dict)
    for result in results:
        how = 'compiled' if result['compiled'] else 'eager'
        settings = f'{result["mode"]}, {result["dtype"]}, {how}'
        arch, window = result['case'].split('-')[0], result['case'].rpartition('-')[2]
        for row in result['rows']:
            if row['seconds']:
                key = f'{arch}-{window}, {settings}, {row["name"]}'
                pixels = math.prod(result['size_px'])
                points[key][pixels] = row['seconds']['median'] / result['batch']
    return {key: _slope(found) for key, found in points.items() if len(found) > 1}


def _slope(points: dict[int, float]) -> float:
    """The exponent of the power law through points, by least squares."""
    xs = [math.log(x) for x in points]
    ys = [math.log(y) for y in points.values()]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)
