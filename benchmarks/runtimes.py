# PYTHON_ARGCOMPLETE_OK
"""Time exported models in several runtimes on a CPU, beside PyTorch: one process, interleaved.

Each model is exported as ONNX and by torch.export. Without --model: a classifier, a segmentor, a
detector and an instance segmentor with random weights, whose detectors keep all they can.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.cli.arguments import new_parser, parse

RANDOM = 'random'
DEFAULT_MODELS = (
    ('configs/classification/swinv2-nano-w8_digits.py', RANDOM),
    ('configs/segmentation/upernet_swinv2-nano-w8_digits.py', RANDOM),
    ('configs/detection/retinanet_swinv2-t-w16_fpn_1x_coco.py', RANDOM),
    ('configs/detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py', RANDOM),
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python benchmarks/runtimes.py --images FOLDER --shape 256
        python benchmarks/runtimes.py --images FOLDER --model CONFIG CKPT --model OTHER random
        """,
    )
    parser.add_argument(
        '--model',
        dest='models',
        nargs=2,
        action='append',
        metavar=('CONFIG', 'WEIGHTS'),
        help="may be repeated; WEIGHTS may be 'random'",
    )
    parser.add_argument('--images', type=Path, required=True, metavar='FOLDER', help='of images')
    parser.add_argument('--num-images', type=int, default=4, metavar='N', help='of each step')
    parser.add_argument(
        '--shape', type=int, nargs='+', default=[256], metavar=('H', 'W'), help='of images, in px'
    )
    parser.add_argument('--rounds', type=int, default=10, metavar='N', help='samples of each')
    parser.add_argument('--threads', type=int, default=1, metavar='N', help='of every runtime')
    parser.add_argument(
        '--files',
        type=Path,
        metavar='FOLDER',
        help='keep exported and compiled files, and take those that are there already',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures')
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import importlib.util
import json
import logging
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

# Run as a script, this file finds its package beside the project's own.
sys.path.append(str(Path(__file__).resolve().parents[1]))

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from benchmarks.backbones import CannotRun
from benchmarks.machine import describe_machine, installed_versions, summarize_machine
from benchmarks.timing import Candidate, Outcome, Spread, ratios, time_interleaved
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli import export
from swinv2_mm.cli.arguments import parse_shape
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.trained_model import load_trained_model
from swinv2_mm.errors import UserError
from swinv2_mm.export.images import read_images, resized
from swinv2_mm.export.model import reference, whole_part
from swinv2_mm.export.verification import Agreement, Outputs, as_input, compared
from swinv2_mm.runtime.files import open_exported

Run = Callable[[Tensor], Outputs]

CPU = torch.device('cpu')
_PYTORCH = 'PyTorch'
_WIDTH = 110
# Nothing of a detector with random weights is sure.
_THRESHOLDS = ('score_thr',)


def config_and_weights(config: str, weights: str, *, folder: Path) -> tuple[Config, Path | str]:
    """Read a config, and draw weights if there are none; then detectors keep what they can."""
    cfg = load_config(config)
    if weights != RANDOM:
        return cfg, weights
    _drop_thresholds(cfg.model.get('test_cfg') or {})
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    path = folder / 'random.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return cfg, path


def _drop_thresholds(settings: Mapping) -> None:
    for name, value in settings.items():
        if name in _THRESHOLDS:
            settings[name] = 0.0
        elif isinstance(value, Mapping):
            _drop_thresholds(value)


def inductor(path: Path) -> Run:
    """Compile a ``.pt2`` file ahead of time for this CPU.

    Raises:
        CannotRun: If there is no compiler.
    """
    names = open_exported(path).output_names
    package = path.with_suffix('.aoti.pt2')
    if not package.exists():
        program = torch.export.load(path)
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
    compiled = torch._inductor.aoti_load_package(str(package))

    def run(x: Tensor) -> Outputs:
        return dict(zip(names, compiled(x), strict=True))

    return run


def openvino(path: Path) -> Run:
    """Open an ONNX file by OpenVINO.

    Raises:
        CannotRun: If it is not installed.
    """
    if importlib.util.find_spec('openvino') is None:
        raise CannotRun('not installed: pip install -r requirements/openvino.txt')
    return open_exported(path, runtime='openvino')


def runtimes(folder: Path) -> dict[str, Callable[[], Run]]:
    """List what runs the files of a folder, by name."""
    onnx, pt2 = folder / 'model.onnx', folder / 'model.pt2'
    return {
        'ONNX Runtime': lambda: open_exported(onnx, runtime='onnxruntime'),
        'OpenVINO': lambda: openvino(onnx),
        'torch.export': lambda: open_exported(pt2),
        'AOTInductor': lambda: inductor(pt2),
    }


def measure(
    cfg: Config, weights: Path | str, *, folder: Path, args: argparse.Namespace
) -> dict[str, object]:
    """Export a model, and time all runtimes on the same images; returns the figures."""
    shape = parse_shape(args.shape)
    for name, file_format in (('model.onnx', 'onnx'), ('model.pt2', 'torch-export')):
        if not (folder / name).exists():
            export(
                cfg,
                weights,
                folder / name,
                file_format=file_format,
                shape=shape,
                images=args.images,
                num_images=args.num_images,
            )
    model, _ = load_trained_model(cfg, weights, device='cpu')
    part = whole_part(model)
    assert part is not None
    images = [
        resized(image, shape_px=shape)
        for image in read_images(args.images, num_images=args.num_images)
    ]
    agreements: dict[str, Agreement] = {}
    starts: dict[str, float] = {}
    expected = [reference(model, image, part=part) for image in images]
    cpu_seconds: dict[str, list[float]] = {}

    def candidate(name: str, step: Callable[[], object]) -> Candidate:
        def act() -> None:
            start = time.process_time()
            with torch.inference_mode():
                step()
            cpu_seconds.setdefault(name, []).append(time.process_time() - start)

        return Candidate(act, act, model=None)

    def eager() -> Candidate:
        return candidate(_PYTORCH, lambda: [reference(model, image, part=part) for image in images])

    def in_runtime(name: str, build: Callable[[], Run]) -> Candidate:
        start = time.perf_counter()
        run = build()
        starts[name] = time.perf_counter() - start
        inputs = [as_input(image) for image in images]
        agreements[name] = sum(
            (
                compared(ours, run(x), longest_px=max(x.shape))
                for ours, x in zip(expected, inputs, strict=True)
            ),
            Agreement(),
        )
        return candidate(name, lambda: [run(x) for x in inputs])

    builders = {_PYTORCH: eager}
    for name, build in runtimes(folder).items():
        builders[name] = lambda name=name, build=build: in_runtime(name, build)
    outcomes = time_interleaved(builders, device=CPU, rounds=args.rounds)
    rows = [
        _row(outcome, base=outcomes[0], agreement=agreements.get(outcome.name), args=args)
        | {
            'start_s': starts.get(outcome.name),
            # The first step warms up.
            'cpu_seconds': _per_image(cpu_seconds.get(outcome.name, [])[1:], args),
        }
        for outcome in outcomes
    ]
    name = Path(cfg.filename).stem
    return {'model': name, 'part': part, 'size_px': shape, 'rows': rows}


def _per_image(seconds: Sequence[float], args: argparse.Namespace) -> dict[str, float] | None:
    """Return the spread of times of steps, for an image."""
    return vars(Spread.of([value / args.num_images for value in seconds])) if seconds else None


def _row(
    outcome: Outcome, *, base: Outcome, agreement: Agreement | None, args: argparse.Namespace
) -> dict[str, object]:
    """Put the figures of a runtime into plain data; seconds are those of an image."""
    ratio = ratios(outcome, base=base)
    return {
        'name': outcome.name,
        'cannot': outcome.reason,
        'seconds': _per_image(outcome.seconds, args),
        'ratio': vars(ratio) if ratio else None,
        'agreement': None if agreement is None else vars(agreement),
    }


def table_of(results: Sequence[dict]) -> Table:
    """Lay the figures out for reading."""
    heads = ('model', 'runtime', 'ms', 'CPU ms', 'time / PyTorch', 'difference', 'agree', 'start s')
    table = Table(title='time per image, and largest relative difference')
    for head in heads:
        table.add_column(head, justify='left' if head in ('model', 'runtime') else 'right')
    for result in results:
        height, width = result['size_px']
        title = f'{result["model"]} ({result["part"]}), {height} x {width} px'
        for row in result['rows']:
            if row['cannot']:
                table.add_row(title, row['name'], f'cannot: {escape(row["cannot"])}')
            else:
                found = row['agreement'] or {}
                count = found.get('num_detections')
                table.add_row(
                    title,
                    row['name'],
                    f'{1000 * row["seconds"]["median"]:.1f}',
                    f'{1000 * row["cpu_seconds"]["median"]:.1f}',
                    f'{row["ratio"]["median"]:.2f}',
                    f'{max(found["differences"].values(), default=float("nan")):.1g}'
                    if found
                    else '-',
                    f'{found["num_agreeing"]} of {count}' if count else '-',
                    f'{row["start_s"]:.1f}' if row['start_s'] else '-',
                )
            title = ''
        table.add_section()
    return table


def main() -> None:
    """Measure."""
    args = parse_args()
    if min(args.rounds, args.threads, args.num_images) < 1:
        raise UserError('--rounds, --threads and --num-images must be positive')
    torch.set_num_threads(args.threads)
    # What other libraries say while models are built and compiled; what matters is in the table.
    MMLogger.get_current_instance().setLevel(logging.ERROR)
    warnings.simplefilter('ignore')
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(summarize_machine(CPU))
    results = []
    for config, weights in args.models or DEFAULT_MODELS:
        with tempfile.TemporaryDirectory() as folder:
            folder = (args.files or Path(folder)) / Path(config).stem
            folder.mkdir(parents=True, exist_ok=True)
            found = config_and_weights(config, weights, folder=folder)
            results.append(measure(*found, folder=folder, args=args))
        console.print(table_of(results[-1:]))
        if args.json is not None:
            report = {
                'command': shlex.join(['python', *sys.argv]),
                'date': datetime.now(timezone.utc).isoformat(timespec='minutes'),
                'machine': describe_machine(CPU),
                'versions': installed_versions(),
                'results': results,
            }
            atomic_write(args.json, json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    run_tool(main)
