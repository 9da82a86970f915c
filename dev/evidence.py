"""Run the studies of ``dev/evidence.yml``: several seeds, a table with mean and spread, figures.

Finished steps are kept: the same command again goes on, also with further seeds. One that was
stopped begins anew, so that its processor time is the whole of it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

# First: it puts the stand-in for mmcv's compiled ops in place.
import swinv2_mm.models  # noqa: F401
from projects.simmim.tools.signal_of_runs import amplitudes
from swinv2_mm.analysis.canvas import save, style
from swinv2_mm.analysis.curves import draw_curves, is_training, read_records
from swinv2_mm.analysis.signal import draw_signal
from swinv2_mm.atomic_write import atomic_write
from swinv2_mm.cli.running import run_tool
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.work_dir import checkpoint_in
from swinv2_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
STUDIES = Path(__file__).with_suffix('.yml')
_RESULT = 'result.json'


@dataclass(frozen=True)
class Study:
    """A study: steps by name, and how to show them.

    Attributes:
        name: Name of the entry in the file.
        content: The entry.
        folder: Holds all results.
    """

    name: str
    content: dict
    folder: Path

    @property
    def rows(self) -> list[str]:
        """Steps that are shown."""
        return self.content.get('rows', list(self.content['steps']))

    def folder_of(self, step: str, seed: int) -> Path:
        """Return the work dir of a step."""
        is_shared = self.content['steps'][step].get('shared')
        folder = self.folder.parent if is_shared else self.folder
        return folder / re.sub(r'\W+', '-', step) / f'seed-{seed}'

    def run(self, step: str, seed: int) -> dict:
        """Run a step and what it needs, unless they are finished.

        Returns:
            ``seconds`` of processor time, ``total_seconds`` with what it started from, ``metrics``.

        Raises:
            UserError: If the command failed, or another one was run in its folder.
        """
        settings = self.content['steps'][step]
        folder = self.folder_of(step, seed)
        options = [*self.content.get('options', ()), *settings.get('options', ())]
        options.append(f'randomness.seed={seed}')
        before = 0.0
        if 'test' in settings:
            trained = settings['test']
            self.run(trained, seed)
            config = self.content['steps'][trained]['train']
            checkpoint = checkpoint_in(self.folder_of(trained, seed))
            arguments = [str(checkpoint), *settings.get('arguments', ())]
            # Only what the test itself changes: the training's options are about its schedule.
            options = list(settings.get('options', ()))
        else:
            config, arguments = settings['train'], []
            if 'start' in settings:
                before = self.run(settings['start'], seed)['total_seconds']
                start = checkpoint_in(self.folder_of(settings['start'], seed))
                options.append(
                    f"model.backbone.init_cfg=dict(type='Pretrained',checkpoint='{start}')"
                )
            if 'as_long_as' in settings:
                other = self.run(settings['as_long_as'], seed)
                options += longer(config, factor=other['total_seconds'] / other['seconds'])
        tool = 'test' if 'test' in settings else 'train'
        command = (
            [config, *arguments, '--cfg-options', *options] if options else [config, *arguments]
        )
        finished = folder / _RESULT
        if finished.exists():
            result: dict = json.loads(finished.read_text())
            if result['command'] != command:
                raise UserError(f'{folder} has the result of another command: name another folder')
            return result
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        out = ['--out', str(folder / 'metrics.json')] if tool == 'test' else []
        seconds = processor_time(tool, [config, *arguments, *out], options, folder=folder)
        result = {'command': command, 'seconds': seconds, 'total_seconds': before + seconds}
        if tool == 'test':
            result['metrics'] = json.loads((folder / 'metrics.json').read_text())['metrics']
        else:
            result['metrics'] = last_scores(folder)
        if (
            lacking := []
            if step not in self.rows
            else self.content['metrics'].keys() - result['metrics']
        ):
            raise UserError(f'{step} gave no {min(lacking)}, but {", ".join(result["metrics"])}')
        atomic_write(finished, json.dumps(result, indent=2) + '\n')
        return result

    def table(self, results: dict[str, list[dict]]) -> str:
        """Return means, spread and processor time of the rows as Markdown."""
        metrics = self.content['metrics']
        lines = [['', *metrics.values(), 'processor time, minutes'], ['---'] * (2 + len(metrics))]
        for row, found in results.items():
            cells = [text([result['metrics'][key] for result in found]) for key in metrics]
            minutes = [result['total_seconds'] / 60 for result in found]
            lines.append([row, *cells, text(minutes)])
        return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines) + '\n'

    def draw(self, seed: int) -> list[Path]:
        """Draw the losses, and the amplitudes where they were logged, of one seed."""
        runs = {
            row: self.folder_of(row, seed)
            for row in self.rows
            if 'train' in self.content['steps'][row]
        }
        if not runs:
            return []
        drawn = [self.folder / 'curves.png']
        with style():
            records = {row: read_records(run) for row, run in runs.items()}
            save(draw_curves(records, keys=['loss']), drawn[0])
            if any('SignalHook' in option for option in self.content.get('options', ())):
                drawn.append(self.folder / 'amplitudes.png')
                signals = {row: amplitudes(run, step=None)[1] for row, run in runs.items()}
                save(draw_signal(signals), drawn[1])
        return drawn


def longer(config: str, *, factor: float) -> list[str]:
    """Return the options by which a training takes ``factor`` times as many steps."""
    cfg = load_config(str(ROOT / config))
    unit = 'max_epochs' if 'max_epochs' in cfg.train_cfg else 'max_iters'
    number = round(cfg.train_cfg[unit] * factor)
    last = cfg.param_scheduler[1]
    return [
        f'train_cfg.{unit}={number}',
        f'train_cfg.val_interval={number}',
        f'param_scheduler.1.end={number}',
        f'param_scheduler.1.T_max={number - last.begin}',
        f'default_hooks.checkpoint.interval={number}',
    ]


def processor_time(
    tool: str, arguments: Sequence[str], options: list[str], *, folder: Path
) -> float:
    """Run a tool in a process of its own, its output in ``log.txt``; return its processor time."""
    command = [sys.executable, str(ROOT / 'tools' / f'{tool}.py'), *arguments]
    command += ['--work-dir', str(folder), *(['--cfg-options', *options] if options else [])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with (folder / 'log.txt').open('w') as log:
        status = subprocess.call(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    if status:
        raise UserError(f'{" ".join(command)} failed: see {folder / "log.txt"}')
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def last_scores(folder: Path) -> dict[str, float]:
    """Return the scores of the last validation of a training."""
    scores: dict[str, float] = {}
    for record in read_records(folder):
        if not is_training(record):
            scores |= record
    return scores


def text(values: Sequence[float]) -> str:
    """Write a mean and, of several values, their standard deviation."""
    digits = 3 if max(map(abs, values)) < 1 else 1
    spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.{digits}f}{spread}'


def main() -> None:
    """Run a study."""
    studies = yaml.safe_load(STUDIES.read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('study', choices=studies)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], metavar='N')
    parser.add_argument(
        '--work-dir', type=Path, default=ROOT / 'work_dirs/evidence', metavar='FOLDER'
    )
    args = parser.parse_args()
    study = Study(args.study, studies[args.study], args.work_dir.absolute() / args.study)
    hours = study.content['hours'] * len(args.seeds)
    print(f'{study.content["about"]}; {len(args.seeds)} seeds, about {hours:.1f} hours on one core')
    results: dict[str, list[dict]] = {row: [] for row in study.rows}
    for seed in args.seeds:
        for row in study.rows:
            results[row].append(study.run(row, seed))
            print(f'seed {seed}: {row}, {results[row][-1]["seconds"]:.0f} s', flush=True)
    table = study.table(results)
    atomic_write(study.folder / 'table.md', table)
    print(table)
    for path in study.draw(args.seeds[0]):
        print(path)


if __name__ == '__main__':
    run_tool(main)
