"""Compare exported files with the models that they come from: the tables of ``docs/export.md``.

Each model of ``dev/export_table.yml`` is trained, exported to ONNX and ``torch.export`` with all
axes open that can be, and tested by its weights and by its files, each command with what the one
before wrote. What is finished is kept: the same command again goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml
from mmengine.config import Config
from PIL import Image

from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli import export, infer, test, train
from swinv2_mm.cli.commands.export import MAIN_METRICS
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.datasets import image_folders
from swinv2_mm.datasets.image_files import is_image_name
from swinv2_mm.engine.work_dir import checkpoint_in, checkpoints_in, config_in
from swinv2_mm.errors import UserError
from swinv2_mm.export import files, writing
from swinv2_mm.export.files import Format
from swinv2_mm.runtime import model as file_model
from swinv2_mm.runtime.files import SUFFIXES, ExportedFile, open_exported, read_metadata

ROOT = Path(__file__).resolve().parents[1]
MODELS = Path(__file__).with_suffix('.yml')
_COMMON = ('backbones/nano.py', 'schedules/adamw-iterations.py')
_FRAGMENT = 'swinv2_mm::_base_/'
# Images that ``infer`` predicts for, by the weights and by each file.
_NUM_INFERRED = 4
# Largest difference between two scores of the same detection.
_SAME_SCORE = 1e-3


@dataclass(frozen=True)
class Case:
    """A model on a data set.

    Attributes:
        model: Its name.
        data: Name of the data.
        folder: Holds all that is made of it.
    """

    model: str
    data: str
    folder: Path

    @property
    def title(self) -> str:
        """What the tables call it."""
        return f'{self.model}, {self.data.split("-")[0]}'

    def write_leaf(self, content: Mapping) -> Path:
        """Write the config that is trained; returns its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        entry, data = content['models'][self.model], content['data'][self.data]
        name = f'{_FRAGMENT}datasets/{data}'
        if '\n' in data:
            name = f'{self.data}.py'
            atomic_write(self.folder / name, data)
        bases = [name, *(f'{_FRAGMENT}{base}' for base in (*entry['bases'], *_COMMON))]
        leaf = self.folder / 'leaf.py'
        atomic_write(leaf, f'_base_ = {bases}\n{content["shared"]}{entry["leaf"]}')
        return leaf

    def train(self, content: Mapping) -> tuple[Path, Path]:
        """Train the model, unless it is; returns its config and its weights."""
        work_dir = self.folder / 'train'
        if not work_dir.is_dir() or not checkpoints_in(work_dir):
            train(self.write_leaf(content), work_dir=work_dir)
        return config_in(work_dir), checkpoint_in(work_dir)

    def measure(self, content: Mapping, *, num_images: int, with_copies: bool) -> dict:
        """Train, export and test, unless it is done; returns what was found."""
        record = self.folder / 'result.json'
        result: dict = json.loads(record.read_text()) if record.exists() else {}
        config, weights = self.train(content)
        # A .pt2 first: it holds the graph as it was traced.
        for file_format in (None, *reversed(SUFFIXES)):
            if (SUFFIXES[file_format] if file_format else 'weights') in result:
                continue
            if file_format is None:
                found = {'weights': test(config, weights, work_dir=self.folder / 'test')}
            else:
                found = self._measure_file(
                    file_format, config, weights, num_images=num_images, with_copies=with_copies
                )
            result |= found
            atomic_write(record, json.dumps(result, indent=2, default=float) + '\n')
        return result

    def _measure_file(
        self,
        file_format: Format,
        config: Path,
        weights: Path,
        *,
        num_images: int,
        with_copies: bool,
    ) -> dict[str, dict]:
        """Export the model and test the file and its copies; returns what was found, by file."""
        suffix, is_onnx = SUFFIXES[file_format], file_format == 'onnx'
        path, smaller = self.folder / f'model{suffix}', is_onnx and with_copies
        try:
            exported = export(
                config, weights, path,
                file_format=file_format, dynamic=True, int8=smaller, fp16=smaller,
                num_images=num_images,
            )  # fmt: skip
        except UserError as error:
            return {suffix: {'refused': str(error)}}
        facts, images = read_metadata(path), _first_images(config)
        predicted = [self._infer(config, weights, images), self._infer(None, path, images)]
        found = {
            'differences': dict(exported.agreement.differences),
            'agreeing': [exported.agreement.num_agreeing, exported.agreement.num_detections],
            'opset': facts['opset'] if is_onnx else None,
            'has_open_size': facts['size'] is None,
            'has_open_batch': facts['batch'] is None,
            'same': _same(*predicted),
            'metrics': exported.metrics.get(path) or test(path, work_dir=self.folder / 'test'),
        }
        copies = {
            copy.name: {
                'metrics': exported.metrics[copy],
                'megabytes': [file.stat().st_size / 1e6 for file in (copy, path)],
            }
            for copy in exported.copies
        }
        return {suffix: found, **copies}

    def _infer(self, config: Path | None, weights: Path, images: list[Path]) -> Path:
        """Predict for images; returns the folder with the predictions."""
        out = self.folder / 'inferred' / (weights.name if config is None else 'weights')
        infer(config, weights, images, out=out, score_threshold=None, resume=out.exists())
        return out


@contextmanager
def _without_repetition() -> Iterator[None]:
    """Trace a model once for both kinds of files, and open each file once: each takes a minute."""
    programs: list[Any] = []
    opened: dict[tuple[int, int], ExportedFile] = {}
    trace = files.trace

    def trace_once(*args: Any, **settings: Any) -> Any:
        if not programs:
            programs.append(trace(*args, **settings))
        return programs[0]

    def open_once(path: str | Path) -> ExportedFile:
        # The same file after it was renamed, too.
        state = os.stat(path)
        key = state.st_ino, state.st_mtime_ns
        if key not in opened:
            opened[key] = open_exported(path)
        return opened[key]

    with (
        patch.object(files, 'trace', trace_once),
        patch.object(writing, 'open_exported', open_once),
        patch.object(file_model, 'open_exported', open_once),
    ):
        yield


def _first_images(config: Path) -> list[Path]:
    """Return the first images of the test set of a config."""
    folders = image_folders(Config.fromfile(config), 'test_dataloader')
    found = (path for folder in folders for path in sorted(Path(folder).glob('*')))
    images = [path for path in found if is_image_name(path.name) and path.suffix != '.png']
    return images[:_NUM_INFERRED]


def _same(ours: Path, theirs: Path) -> float:
    """Return the share of detections, or of pixels of label maps, that two predictions share."""
    records = [
        [json.loads(line) for line in (folder / 'predictions.jsonl').read_text().splitlines()]
        for folder in (ours, theirs)
    ]
    num_same = num = 0
    for one, other in zip(*records, strict=True):
        pairs = [one.get('detections', []), other.get('detections', [])]
        num += max(map(len, pairs))
        num_same += sum(
            a['label'] == b['label'] and abs(a['score'] - b['score']) <= _SAME_SCORE
            for a, b in zip(*pairs, strict=False)
        )
    for path in sorted((ours / 'label_maps').glob('*.png')):
        both = [path, theirs / 'label_maps' / path.name]
        first, second = (np.asarray(Image.open(file)) for file in both)
        num += first.size
        num_same += int((first == second).sum())
    return num_same / num if num else 1.0


def _percent(metrics: Mapping[str, float], names: Sequence[str]) -> str:
    """Write metrics as one cell, in %."""
    cells = []
    for name in names:
        # COCO's are shares, the others already in %.
        value = metrics[name] * (100 if name.startswith('coco/') else 1)
        cells.append(f'{_short(name)} {value:.2f}')
    return ', '.join(cells)


def _short(name: str) -> str:
    return {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'}.get(name, name)


def _file_rows(title: str, result: Mapping) -> Iterator[list[str]]:
    """Return the rows of the first table of a case, one per file."""
    for suffix in SUFFIXES.values():
        found = result[suffix]
        if 'refused' in found:
            yield [title, suffix[1:], '', found['refused'], '', '', '']
            continue
        agreeing, number = found['agreeing']
        difference = ', '.join(f'{name} {d:.1g}' for name, d in found['differences'].items())
        if number:
            difference += f'; {agreeing} of {number} detections'
        is_open = 'batch, ' * found['has_open_batch'] + 'height, width' * found['has_open_size']
        yield [
            title, suffix[1:] + (f' (opset {found["opset"]})' if found['opset'] else ''), is_open,
            difference, _percent(result['weights'], _main(result)),
            _percent(found['metrics'], _main(result)), f'{100 * found["same"]:.1f} %',
        ]  # fmt: skip


def _copy_row(title: str, result: Mapping) -> list[str]:
    """Return the row of the second table of a case."""
    copies = [result[f'model.{bits}.onnx'] for bits in ('fp16', 'int8')]
    found = [result[SUFFIXES['onnx']]['metrics'], *(copy['metrics'] for copy in copies)]
    sizes = [copies[0]['megabytes'][1], *(copy['megabytes'][0] for copy in copies)]
    cells = zip(found, sizes, strict=True)
    return [
        title,
        *(f'{_percent(metrics, _main(result))}; {size:.1f} MB' for metrics, size in cells),
    ]


def _main(result: Mapping) -> list[str]:
    """Return the names of the metrics that the export tool prints for the copies of a file."""
    original = result['weights']
    return [name for name in original if name.endswith(MAIN_METRICS)]


_FILE_HEAD = ('model, data', 'file', 'open', 'largest difference', 'weights', 'file', '`infer`')
_COPY_HEAD = ('model, data', 'float32', 'fp16', 'int8')


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines) + '\n'


def cases(content: Mapping, folder: Path) -> list[Case]:
    """List all models on all their data."""
    return [
        Case(model, data, folder / re.sub(r'\W+', '-', f'{model} {data}').lower())
        for model, entry in content['models'].items()
        for data in entry['data']
    ]


def main() -> None:
    """Train, export, test, and print the tables."""
    content = yaml.safe_load(MODELS.read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('models', nargs='*', metavar='NAME', help='default: all')
    parser.add_argument('--data', nargs='*', help='only on these data sets')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/export_table')
    parser.add_argument('--num-images', type=int, default=20, help='to compare a file on')
    parser.add_argument('--no-copies', action='store_true', help='no files in fewer bits')
    parser.add_argument('--only-train', action='store_true', help='export nothing')
    args = parser.parse_args()
    folder = args.work_dir.absolute()
    chosen = [
        case
        for case in cases(content, folder)
        if case.model in (args.models or content['models'])
        and (not args.data or case.data in args.data)
    ]
    # Not that of the clone: nothing may depend on it.
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    found = []
    for case in chosen:
        print(f'{case.title}: {case.folder}', flush=True)
        if args.only_train:
            case.train(content)
        else:
            with _without_repetition():
                result = case.measure(
                    content, num_images=args.num_images, with_copies=not args.no_copies
                )
            found.append((case.title, result))
    if args.only_train:
        return
    rows = [row for title, result in found for row in _file_rows(title, result)]
    print(_markdown(_FILE_HEAD, rows))
    if not args.no_copies:
        print(_markdown(_COPY_HEAD, [_copy_row(title, result) for title, result in found]))


if __name__ == '__main__':
    run_tool(main)
