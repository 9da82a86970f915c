# PYTHON_ARGCOMPLETE_OK
# ruff: noqa: E402  the command line is read before the slow imports
"""Benchmark predictions for a folder: infer with 1 and more processes, and mmdet's DetInferencer.

All read the same files with the same weights, and write JSON and visualizations. A process of its
own each, in turn, round after round; what is timed begins when the model is built. The processor's
time of an image says what it costs, also on a machine that has other work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import CONFIGS, FOLDERS, WEIGHTS, add_cfg_options, new_parser, parse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python benchmarks/inference.py photographs --config CONFIG --weights CKPT
        python benchmarks/inference.py photographs --config CONFIG --processes 1 2 --no-pictures
        """,
    )
    add = parser.add_argument
    add('folder', metavar='FOLDER', help='images').completer = FOLDERS
    add('--config', required=True, metavar='FILE', help='config file').completer = CONFIGS
    add(
        '--weights', metavar='CKPT', help='default: those that the model starts with'
    ).completer = WEIGHTS
    add_cfg_options(parser)
    add('--processes', type=int, nargs='+', default=[1, 2], metavar='N', help='jobs to compare')
    add('--batch-size', type=int, default=1, metavar='N', help='images at once')
    add('--no-pictures', action='store_true', help='write JSON only')
    add('--rounds', type=int, default=3, metavar='N', help='runs of each')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import logging
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from rich.console import Console
from rich.table import Table

# Run as a script, this file finds its package beside the project's own.
sys.path.append(str(Path(__file__).resolve().parents[1]))

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from benchmarks.machine import summarize_machine
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.file import as_config
from swinv2_mm.config.peer_inferencers import config_for_inferencers
from swinv2_mm.errors import UserError
from swinv2_mm.inference import SwinV2Inferencer
from swinv2_mm.inference.job import join_job
from swinv2_mm.inference.sources import find_sources
from swinv2_mm.inference.writing import PredictionRun

_SCORE_THRESHOLD = 0.3
_POLL_S = 0.05
# As torchrun has it.
_VARIABLES = ('RANK', 'LOCAL_RANK'), ('WORLD_SIZE', 'LOCAL_WORLD_SIZE')


class Times(NamedTuple):
    """What a run took: on the clock, and of the processor, all threads and processes together."""

    seconds: float
    cpu_seconds: float


def forked(calls: list[Callable[[], Any]]) -> list[Any]:
    """Call functions at the same time, each in a process of its own that has all imports."""
    context = multiprocessing.get_context('fork')
    pipes = [context.Pipe(duplex=False) for _ in calls]

    def work(call: Callable[[], Any], pipe: Any) -> None:
        with open(os.devnull, 'w') as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            pipe.send(call())

    children = [
        context.Process(target=work, args=(call, pipe))
        for call, (_, pipe) in zip(calls, pipes, strict=True)
    ]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        if any(child.exitcode for child in children):
            # The others would wait for it.
            for child in children:
                child.kill()
        time.sleep(_POLL_S)
    if any(child.exitcode for child in children):
        raise UserError('a process has failed; run swinv2-mm infer alone to see why')
    return [pipe.recv() for pipe, _ in pipes]


def write_start_weights(args: argparse.Namespace, path: Path) -> None:
    """Write the weights that a model starts with."""
    cfg = as_config(args.config, args.options)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)


def time_infer(args: argparse.Namespace, out: Path, *, rank: int, size: int, port: int) -> Times:
    """Predict as a process of ``infer``."""
    for names, value in zip(_VARIABLES, (rank, size), strict=True):
        os.environ.update(dict.fromkeys(names, str(value)))
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    job = join_job('pytorch')
    inferencer = SwinV2Inferencer(args.config, args.weights, device='cpu', options=args.options)
    predict = PredictionRun(
        inferencer,
        folder=out,
        settings={},
        batch_size=args.batch_size,
        score_threshold=None if args.no_pictures else _SCORE_THRESHOLD,
        resume=False,
        total=None,
        passed_over={},
        job=job,
    )
    return _time(lambda: predict(find_sources([args.folder])))


def time_det_inferencer(args: argparse.Namespace, out: Path) -> Times:
    """Predict with mmdet's inferencer."""
    from mmdet.apis import DetInferencer

    cfg = config_for_inferencers(as_config(args.config, args.options))
    predict = DetInferencer(cfg, str(args.weights), device='cpu', show_progress=False)
    # It takes the files of the folder itself, not those of the folders in it.
    files = [source.path for source in find_sources([args.folder])]
    return _time(
        lambda: predict(
            files,
            batch_size=args.batch_size,
            out_dir=str(out),
            no_save_vis=args.no_pictures,
            no_save_pred=False,
            pred_score_thr=_SCORE_THRESHOLD,
        )
    )


def _time(predict: Callable[[], object]) -> Times:
    start = time.monotonic(), time.process_time()
    predict()
    return Times(time.monotonic() - start[0], time.process_time() - start[1])


def run(args: argparse.Namespace, folder: Path) -> dict[str, list[Times]]:
    """Run all candidates in turn; returns the times of their rounds."""
    if args.weights is None:
        args.weights = folder / 'weights.pth'
        forked([partial(write_start_weights, args, args.weights)])
    times: dict[str, list[Times]] = {}
    is_detector = as_config(args.config, args.options).get('default_scope') == 'mmdet'
    for _ in range(args.rounds):
        for size in args.processes:
            job = partial(time_infer, args, folder / 'out', size=size, port=_free_port())
            found = forked([partial(job, rank=rank) for rank in range(size)])
            total = Times(max(t.seconds for t in found), sum(t.cpu_seconds for t in found))
            times.setdefault(f'infer, processes: {size}', []).append(total)
            shutil.rmtree(folder / 'out')
        if is_detector:
            found = forked([partial(time_det_inferencer, args, folder / 'peer')])
            times.setdefault('DetInferencer', []).extend(found)
            shutil.rmtree(folder / 'peer')
    return times


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def main() -> None:
    """Measure."""
    args = parse_args()
    if args.rounds < 1 or args.batch_size < 1 or min(args.processes) < 1:
        raise UserError('--rounds, --batch-size and --processes must be positive')
    # What the libraries say while they build models; what matters is in the table.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as folder:
        times = run(args, Path(folder))
    num_images = sum(1 for _ in find_sources([args.folder]))
    table = Table('', 'images/s', 'CPU s per image', 'images/s of the rounds')
    for name, rounds in times.items():
        rates = [num_images / one.seconds for one in rounds]
        cpu_seconds = statistics.median(one.cpu_seconds for one in rounds) / num_images
        table.add_row(
            name,
            f'{statistics.median(rates):.2f}',
            f'{cpu_seconds:.3f}',
            ' '.join(f'{rate:.2f}' for rate in rates),
        )
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(summarize_machine(torch.device('cpu')))
    console.print(table)


if __name__ == '__main__':
    run_tool(main)
