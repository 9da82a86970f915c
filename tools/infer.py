# PYTHON_ARGCOMPLETE_OK
"""Predict for images, folders and videos with a trained detector, segmentor or classifier.

Writes to the folder --out: predictions.jsonl (a line per image), pictures/, for segmentors
label_maps/, for detectors coco_results.json, for videos videos/. A file that cannot be read is
named and passed over; the exit status is then 1, or, with bad_data='skip' in the config, 0 if any
file could be read, and skipped.jsonl lists the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swinv2_mm.command_line import (
    CONFIGS,
    FOLDERS,
    WEIGHTS,
    add_cfg_options,
    add_device,
    add_trust,
    new_parser,
    parse,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        examples="""
        python tools/infer.py photographs --config CONFIG --weights CKPT
        python tools/infer.py a.jpg film.mp4 --config CONFIG --weights CKPT --out found
        find . -name '*.png' | python tools/infer.py - --config CONFIG --weights CKPT --resume
        """,
    )
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='IMAGE|FOLDER|VIDEO|-',
        help='what to predict for; - reads names of files, one a line, from standard input',
    )
    model = parser.add_argument_group('the model')
    model.add_argument(
        '--config', required=True, metavar='FILE', help='config file'
    ).completer = CONFIGS
    model.add_argument(
        '--weights',
        required=True,
        metavar='CKPT',
        help='checkpoint, weights of any layout, or a released name',
    ).completer = WEIGHTS
    add_device(model)
    model.add_argument('--batch-size', type=int, default=1, metavar='N', help='images at once')
    model.add_argument(
        '--window-size',
        metavar='N[,N...]',
        help='another window, in tokens: one for all stages or one per stage, each N or HxW',
    )
    model.add_argument(
        '--tta', action='store_true', help='merge several scales and flips, as tools/test.py does'
    )
    add_cfg_options(model)
    add_trust(model)
    output = parser.add_argument_group('what to write')
    output.add_argument(
        '--out', type=Path, default=Path('predictions'), metavar='FOLDER', help='where to'
    ).completer = FOLDERS
    output.add_argument('--resume', action='store_true', help='go on in a folder with results')
    output.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='draw detections from this score on, default 0.3; the JSON files hold all',
    )
    output.add_argument('--no-pictures', action='store_true', help='draw nothing')
    output.add_argument(
        '--coco-ids',
        type=Path,
        metavar='FILE.json',
        help='number images and classes in coco_results.json as this annotation file does',
    )
    return parse(parser)


if __name__ == '__main__':
    parse_args()  # answers --help, completion and mistakes before the slow imports

import itertools
import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from swinv2_mm.checkpoint.reading import trust_files
from swinv2_mm.config.windows import parse_window_size
from swinv2_mm.data_check.bad_data import SKIPPED_FILE, SkippedList, policy_of
from swinv2_mm.engine.launch import run_tool
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference import SwinV2Inferencer
from swinv2_mm.inference.coco_files import default_numbers, read_numbers, write_coco_files
from swinv2_mm.inference.output_folder import OutputFolder
from swinv2_mm.inference.sources import Source, find_sources
from swinv2_mm.inference.video import VideoReader, VideoWriter

# When memory is first measured: libraries have allocated what they keep.
_WARM_AFTER = 50
_BYTES_PER_UNIT = 1 if sys.platform == 'darwin' else 1024


class Run:
    """One call of the tool.

    Attributes:
        num_done: Files that have their results.
        num_failed: Files that have not.
    """

    def __init__(
        self, args: argparse.Namespace, inferencer: SwinV2Inferencer, *, bar: tqdm
    ) -> None:
        self.args = args
        self.inferencer = inferencer
        self._bar = bar
        self.num_done = self.num_failed = 0
        is_skipping = policy_of(inferencer.cfg, 'infer') == 'skip'
        self.skipped = SkippedList(args.out / SKIPPED_FILE) if is_skipping else None
        self.warm_memory = 0.0
        described = ('config', 'weights', 'window_size', 'tta', 'score_threshold', 'cfg_options')
        run = {'task': inferencer.task, **{name: getattr(args, name) for name in described}}
        self.output = OutputFolder(args.out, run=run, resume=args.resume)

    def go(self, sources: Iterable[Source]) -> None:
        """Predict for all files."""
        waiting = self._without_done(sources)
        for is_video, group in itertools.groupby(waiting, key=lambda source: source.is_video):
            if is_video:
                self._videos(group)
            else:
                self._images(group)

    def _without_done(self, sources: Iterable[Source]) -> Iterator[Source]:
        for source in sources:
            if self.output.is_done(source):
                self._bar.update()
            else:
                yield source

    def _succeed(self) -> None:
        self.num_done += 1
        self._bar.update()
        if self.num_done == _WARM_AFTER:
            self.warm_memory = peak_memory_mb()

    def _fail(self, source: object, reason: str) -> None:
        self.num_failed += 1
        self._bar.update()
        self._bar.set_postfix(failed=self.num_failed)
        if self.skipped is not None:
            self.skipped.add(loader='infer', file=str(source), reason=reason)
        tqdm.write(f'{"failed" if self.skipped is None else "skipped"}: {reason}', file=sys.stderr)

    def _images(self, sources: Iterable[Source]) -> None:
        size = self.args.batch_size
        for prediction in self.inferencer(sources, batch_size=size, on_error=self._fail):
            self.output.add(prediction, picture=self._draw(prediction))
            self._succeed()

    def _draw(self, prediction: object) -> object:
        if self.args.no_pictures:
            return None
        return self.inferencer.draw(prediction, score_threshold=self.args.score_threshold)

    def _videos(self, sources: Iterable[Source]) -> None:
        for source in sources:
            try:
                self._video(source)
            except DataError as error:
                self._fail(source, str(error))
            else:
                self._succeed()

    def _video(self, source: Source) -> None:
        reader = VideoReader(source)
        name = self.output.reserve_name(source)
        folder = self.output.root / 'videos'
        lines = folder / f'{name}.jsonl'
        lines.parent.mkdir(parents=True, exist_ok=True)
        frames = self.inferencer(reader, batch_size=self.args.batch_size)
        bar = tqdm(frames, total=reader.num_frames or None, desc=name, leave=False, disable=None)
        with lines.open('w') as file, VideoWriter(folder / f'{name}.mp4', rate=reader.rate) as out:
            for number, prediction in enumerate(bar):
                file.write(json.dumps({'frame': number, **prediction.to_dict()}) + '\n')
                if not self.args.no_pictures:
                    out.write(self._draw(prediction))
        content = {'frames': number + 1, 'predictions': f'videos/{name}.jsonl'}
        self.output.add_record(source, name, content)


def peak_memory_mb() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_UNIT / 1e6


def main() -> None:
    """Predict."""
    args = parse_args()
    if args.trust_checkpoint:
        trust_files()
    if args.batch_size < 1:
        raise UserError(f'--batch-size must be positive, got {args.batch_size}')
    if args.inputs.count('-') > 1:
        raise UserError('standard input (-) can be read only once')
    window_size = None if args.window_size is None else parse_window_size(args.window_size)
    total = None
    if '-' not in args.inputs:
        total = sum(1 for _ in find_sources(args.inputs))
    inferencer = SwinV2Inferencer(
        args.config,
        args.weights,
        device=args.device,
        window_size=window_size,
        use_tta=args.tta,
        options=args.cfg_options,
    )
    names = inferencer.classes.names
    numbers = read_numbers(args.coco_ids, classes=names) if args.coco_ids else None
    start = time.monotonic()
    with tqdm(total=total, unit='file', disable=None) as bar:
        run = Run(args, inferencer, bar=bar)
        try:
            run.go(find_sources(args.inputs, lines=sys.stdin))
        except KeyboardInterrupt:
            bar.close()
            print(f'{run.num_done} files done; --resume goes on', file=sys.stderr)
            raise
        finally:
            run.output.close()
    if inferencer.task == 'detection':
        numbers = numbers or default_numbers(names)
        write_coco_files(run.output.records(), args.out, classes=names, numbers=numbers)
    seconds = time.monotonic() - start
    failed = 'failed' if run.skipped is None else f'skipped ({run.skipped.path})'
    summary = f'{run.num_done} files done, {run.num_failed} {failed}, in {seconds:.1f} s; '
    summary += f'memory at most {peak_memory_mb():.0f} MB'
    if run.warm_memory:
        summary += f' (after {_WARM_AFTER} files {run.warm_memory:.0f} MB)'
    print(f'{summary}. Results: {args.out}')
    if run.num_failed and (run.skipped is None or not run.num_done):
        sys.exit(1)


if __name__ == '__main__':
    run_tool(main)
