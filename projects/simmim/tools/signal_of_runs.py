# PYTHON_ARGCOMPLETE_OK
"""Draw how amplitudes grow with depth in trainings that logged them (paper figure 2).

A run logs them by SignalHook or SwinV1SignalHook. The losses of the same runs (figure 3) are drawn
by tools/analysis/plot.py curves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import FOLDERS, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python projects/simmim/tools/signal_of_runs.py work_dirs/A work_dirs/B --out depth.png
        """,
    )
    parser.add_argument('runs', nargs='+', type=Path, help='work dirs').completer = FOLDERS
    parser.add_argument(
        '--step', type=int, metavar='N', help='iteration to draw; default: the last logged'
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE.png|svg', help='the picture'
    )
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

from swinv2_mm.analysis.canvas import check_path, save, style
from swinv2_mm.analysis.curves import read_records
from swinv2_mm.analysis.signal import draw_signal
from swinv2_mm.cli.running import run_tool
from swinv2_mm.errors import UserError

_PREFIX = 'signal/'


def amplitudes(run: Path, *, step: int | None) -> tuple[int, dict[str, float]]:
    """Return the iteration, and the amplitude by place and layer, in order of depth.

    Raises:
        UserError: If the run logged none, or none at ``step``.
    """
    logged = {
        int(record['step']): {
            name.removeprefix(_PREFIX): value
            for name, value in record.items()
            if name.startswith(_PREFIX)
        }
        for record in read_records(run)
        if any(name.startswith(_PREFIX) for name in record)
    }
    if not logged:
        raise UserError(f'{run} logged no amplitudes: its config needs a SignalHook')
    step = max(logged) if step is None else step
    if step not in logged:
        steps = ', '.join(map(str, logged))
        raise UserError(f'--step {step}: {run} logged amplitudes at {steps}')
    return step, logged[step]


def main() -> None:
    """Read and draw."""
    args = parse_args()
    check_path(args.out)
    signals = {}
    for run in args.runs:
        step, signal = amplitudes(run, step=args.step)
        signals[f'{run.name}, iteration {step}'] = signal
    with style():
        save(draw_signal(signals), args.out)
    print(args.out)


if __name__ == '__main__':
    run_tool(main)
