"""Predict for images, folders and videos with a trained detector, segmentor or classifier.

Writes to the folder --out: predictions.jsonl (a line per image), pictures/, for segmentors
label_maps/, for detectors coco_results.json, for videos videos/. A file that cannot be read is
reported and skipped; the exit status is then 1, or, with bad_data='skip' in the config, 0 if
any file could be read, and skipped.jsonl lists the others. Under torchrun, or srun with --launcher
slurm, processes share the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_mm.cli.arguments import (
    FOLDERS,
    add_launcher,
    add_predictor,
    call,
    new_parser,
    run_command,
)
from swinv2_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from swinv2_mm.inference.writing import Summary


# Score from which tracks begin where no score threshold for drawing is given.
_TRACKED_FROM = 0.3


def infer(
    cfg: str | Path | Config | None,
    weights: str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    out: str | Path = 'predictions',
    device: str | None = None,
    batch_size: int = 1,
    window_size: int | Sequence | None = None,
    tta: bool = False,
    score_threshold: float | None = 0.3,
    coco_ids: str | Path | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    track: bool = False,
    resume: bool = False,
    options: Sequence[str] = (),
    launcher: str = 'none',
) -> Summary | None:
    """Predict for images, folders and videos, and write the results to a folder.

    Args:
        cfg: A config file, or a config, which is not modified; ``None`` takes that of an exported
            file.
        weights: A checkpoint, weights of any layout, the name of a released model, or a file that
            ``export`` wrote.
        inputs: Images, folders and videos; ``-`` reads names of files, one per line, from standard
            input.
        out: Folder that receives the results.
        device: Such as ``cuda:1``; default a GPU if there is one.
        batch_size: Images that go through the model together.
        window_size: Another window than the config's, in tokens: one for all stages or one per
            stage, each N or (h, w).
        tta: Whether to merge several scales and flips, by the config entry ``tta``.
        score_threshold: Detections are drawn from this score on, the files hold all; ``None`` draws
            nothing.
        tile: Side in pixels of tiles that larger images go through the model in; ``None`` takes
            every image whole.
        overlap: Least overlap of tiles in pixels; default a quarter of the tile.
        track: Whether the detections of videos get track ids, by the package trackers.
        coco_ids: COCO annotation file whose image and category ids ``coco_results.json`` takes.
        resume: Whether to go on in a folder with results.
        options: Overrides of config entries, as ``key=value``.
        launcher: How the processes that share the images were started: ``none``, ``pytorch``,
            ``slurm`` or ``mpi``.

    Returns:
        What was done and what failed; ``None`` in all processes of a job but the first.

    Raises:
        UserError: If the config or the weights do not fit what is asked.
    """
    files = [str(path) for path in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    if batch_size < 1:
        raise UserError(f'--batch-size must be positive, got {batch_size}')
    if score_threshold is not None and not 0 <= score_threshold <= 1:
        raise UserError(f'--score-threshold is a score from 0 to 1, got {score_threshold:g}')
    if files.count('-') > 1:
        raise UserError('standard input (-) can be read only once')
    from swinv2_mm.inference import SwinV2Inferencer
    from swinv2_mm.inference.coco_files import default_numbers, read_numbers, write_coco_files
    from swinv2_mm.inference.identity import config_identity, file_identity
    from swinv2_mm.inference.job import join_job
    from swinv2_mm.inference.output_folder import result_folders
    from swinv2_mm.inference.sources import find_sources, passed_over
    from swinv2_mm.inference.tile_grid import Tiling
    from swinv2_mm.inference.writing import PredictionRun
    from swinv2_mm.runtime.metadata import config_in

    if overlap is not None and tile is None:
        raise UserError('--overlap is that of tiles: it needs --tile')
    tiling = None if tile is None else Tiling.of(tile, overlap)
    if cfg is None:
        cfg = config_in(weights)
    job = join_job(launcher)
    is_first = job.rank == 0
    written = result_folders(Path(out))
    total = None
    if is_first and '-' not in files:
        total = sum(1 for _ in find_sources(files, results=written))
    inferencer = SwinV2Inferencer(
        cfg,
        weights,
        device=job.device(device),
        window_size=window_size,
        use_tta=tta,
        options=options,
    )
    if tiling is not None and inferencer.task == 'classification':
        raise UserError('--tile is for detectors and segmentors: a classifier takes whole images')
    if track and inferencer.task != 'detection':
        raise UserError(f'--track follows detections; this model does {inferencer.task}')
    names = inferencer.classes.names
    numbers = default_numbers(names) if coco_ids is None else read_numbers(coco_ids, classes=names)
    if numbers.images and is_first and '-' not in files:
        # Now, and not when all images are done.
        for source in find_sources(files, results=written):
            if not source.is_video:
                numbers.of_image(source.path)
    settings = {
        'task': inferencer.task,
        'config': config_identity(inferencer.cfg, classes=names),
        'weights': file_identity(weights),
        'window_size': None if window_size is None else str(window_size),
        'tta': tta,
        'score_threshold': score_threshold,
        'tile': tile,
        'overlap': overlap,
        'track': track,
        'cfg_options': list(options),
    }
    run = PredictionRun(
        inferencer,
        folder=Path(out),
        settings=settings,
        batch_size=batch_size,
        score_threshold=score_threshold,
        tiling=tiling,
        track_from=(score_threshold or _TRACKED_FROM) if track else None,
        resume=resume,
        total=total,
        passed_over=passed_over(
            (file for file in files if is_first and file != '-'), results=written
        ),
        job=job,
    )
    if hasattr(sys.stdin, 'reconfigure'):
        # Names of files are bytes, of which not all are text.
        sys.stdin.reconfigure(errors='surrogateescape')
    summary = run(find_sources(files, lines=sys.stdin, results=written))
    if inferencer.task == 'detection' and is_first:
        write_coco_files(run.output.records(), Path(out), classes=names, numbers=numbers)
    return summary


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(
        __doc__,
        examples="""
        %(prog)s photographs --config CONFIG --weights CKPT
        %(prog)s a.jpg film.mp4 --config CONFIG --weights CKPT --out found
        %(prog)s photographs --weights model.onnx
        %(prog)s aerial.tif --config CONFIG --weights CKPT --tile 1024 --overlap 128
        %(prog)s film.mp4 --config CONFIG --weights CKPT --track
        find . -name '*.png' | %(prog)s - --config CONFIG --weights CKPT --resume
        torchrun --nproc_per_node 8 tools/infer.py photographs --config CONFIG --weights CKPT
        """,
    )
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='IMAGE|FOLDER|VIDEO|-',
        help='what to predict for; - reads names of files, one per line, from standard input',
    )
    model = parser.add_argument_group('the model')
    add_predictor(model)
    model.add_argument('--batch-size', type=int, default=1, metavar='N', help='batch size')
    model.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: merge several scales and flips, as the command test does',
    )
    model.add_argument(
        '--tile',
        type=int,
        metavar='N',
        help='cut images that are larger than N x N pixels into tiles of that size, and merge',
    )
    model.add_argument(
        '--overlap', type=int, metavar='N', help='least overlap of tiles, default a quarter'
    )
    model.add_argument(
        '--track', action='store_true', help='follow detections through videos: track ids'
    )
    add_launcher(model)
    output = parser.add_argument_group('what to write')
    output.add_argument(
        '--out', type=Path, default=Path('predictions'), metavar='FOLDER', help='output folder'
    ).completer = FOLDERS
    output.add_argument('--resume', action='store_true', help='resume in a folder with results')
    output.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='draw detections from this score on, default 0.3; the JSON files hold all',
    )
    output.add_argument(
        '--no-pictures',
        dest='score_threshold',
        action='store_const',
        const=None,
        help='write no visualizations',
    )
    output.add_argument(
        '--coco-ids',
        type=Path,
        metavar='FILE.json',
        help='take the ids of images and classes in coco_results.json from this annotation file',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""

    def run(args: argparse.Namespace) -> None:
        summary = call(infer, args)
        if summary is not None:
            print(summary)
        if summary is not None and not summary.is_success:
            sys.exit(1)

    run_command(build_parser(), argv, run, runs_model=True)
