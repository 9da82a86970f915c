"""Read and draw training curves from MMEngine's scalars, over resumed runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from swinv2_mm.errors import UserError

from .canvas import legend_below, line_style, new_figure, tidy

Record = dict[str, float]
# Scalars about the progress of a run, not about what it learns.
_BOOKKEEPING = ('iter', 'epoch', 'step', 'data_time', 'time', 'memory', 'eta')
_COLUMNS = 3
_MOST_PANELS = 9


def read_records(source: Path) -> list[Record]:
    """Read the scalars of a work dir, or of one ``scalars.json``, in order of steps.

    Where a resumed part goes over steps again, the later one counts. A validation that was logged
    by epoch is moved to the last iteration of that epoch.

    Raises:
        UserError: If there are none.
    """
    if source.is_file():
        files = [source]
    elif source.is_dir():
        # Folders of a run are called by the time of its start.
        files = sorted(source.glob('*/vis_data/scalars.json')) or sorted(
            source.glob('vis_data/scalars.json')
        )
    else:
        raise UserError(f'{source} does not exist')
    records: list[Record] = []
    for file in files:
        part = _read_file(file)
        if part:
            first = min(record['step'] for record in part)
            records = [record for record in records if record['step'] < first] + part
    if not records:
        raise UserError(f'{source} holds no scalars.json with curves of a training')
    # Stable: of one step, training comes before validation.
    return sorted(records, key=lambda record: record['step'])


def _read_file(file: Path) -> list[Record]:
    records = []
    try:
        lines = file.read_text(errors='replace').splitlines()
    except OSError as error:
        raise UserError(f'{file} cannot be read: {error.strerror}') from error
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # A run that was killed leaves half a line.
        if isinstance(entry, dict) and isinstance(entry.get('step'), (int, float)):
            numbers = {k: float(v) for k, v in entry.items() if type(v) in (int, float)}
            records.append(numbers)
    return _by_iteration(records)


def _by_iteration(records: list[Record]) -> list[Record]:
    """Count validations that are logged by epoch in iterations."""
    ends: dict[float, float] = {}
    for record in records:
        if 'epoch' in record:
            ends[record['epoch']] = max(ends.get(record['epoch'], 0), record['step'])
    validations = [r for r in records if not is_training(r) and not _is_signal(r)]
    if not ends or any(record['step'] > max(ends) for record in validations):
        return records
    for record in validations:
        record['step'] = ends.get(record['step'], record['step'])
    return records


def is_training(record: Record) -> bool:
    """Whether a record is of training iterations, not of a validation or a hook."""
    return 'iter' in record or 'epoch' in record or 'lr' in record


def _is_signal(record: Record) -> bool:
    """Whether a record is of ``SignalHook``, which always counts iterations."""
    return any(key.startswith('signal/') for key in record)


def default_keys(records: Sequence[Record]) -> list[str]:
    """Choose what to draw: the loss, the main scores, the learning rate, the gradient."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    training = {key for record in records if is_training(record) for key in record}
    scores = [
        key for key in keys
        if key not in training and key not in _BOOKKEEPING and not key.startswith('signal/')
    ]  # fmt: skip
    first = [key for key in ('loss',) if key in keys]
    last = [key for key in ('lr', 'grad_norm') if key in keys]
    return (first + scores)[: _MOST_PANELS - len(last)] + last


def series(records: Sequence[Record], key: str) -> tuple[list[float], list[float]]:
    """Return steps and values of one scalar, where it is a finite number."""
    points = [(r['step'], r[key]) for r in records if key in r and math.isfinite(r[key])]
    return [step for step, _ in points], [value for _, value in points]


def draw_curves(runs: Mapping[str, Sequence[Record]], *, keys: Sequence[str] | None) -> Figure:
    """Draw one panel per scalar and one line per run.

    Args:
        runs: Records by the name of a run.
        keys: Scalars; ``None`` chooses.

    Raises:
        UserError: If no run has one of the scalars.
    """
    known = list(dict.fromkeys(key for records in runs.values() for r in records for key in r))
    for key in keys or ():
        if key not in known:
            raise UserError(f"--keys: no '{key}' in these runs; there are {', '.join(known)}")
    if keys is None:
        keys = list(dict.fromkeys(k for records in runs.values() for k in default_keys(records)))
        keys = keys[:_MOST_PANELS]
    columns = min(_COLUMNS, len(keys))
    lines = -(-len(keys) // columns)
    figure = new_figure(width=0.6 + 3.9 * columns, height=0.8 + 2.7 * lines)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True).flatten()
    for ax, key in zip(axes, keys, strict=False):
        for number, (name, records) in enumerate(runs.items()):
            steps, values = series(records, key)
            few = 'o' if len(steps) < 15 else None
            ax.plot(steps, values, label=name, marker=few, markersize=4, **line_style(number))
        _finish(ax, key)
    for ax in axes[len(keys) :]:
        ax.set_axis_off()
    if len(runs) > 1:
        legend_below(figure, axes[0])
    return figure


def _finish(ax: Axes, key: str) -> None:
    ax.set_title(key)
    ax.set_xlabel('iteration')
    ax.tick_params(labelbottom=True)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    tidy(ax)
