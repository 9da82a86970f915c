"""Kills trainings at random moments and resumes them, until they have come to their end.

    SWINV2_DATA=DATA python tests/kill_harness.py FOLDER [--kills 16 9 7] [--seed 0]

DATA holds the digits of ``make demo``. Each training is a process of its own with the whole of
tools/train.py in it, forked from one that has done the imports. Saves are slow: half of a file,
a wait, the other half, a wait, and only then its name. Exits with 1 unless every resumed run goes
on from at most a save interval before the kill, and the last checkpoint (weights, average,
optimiser, schedules, logged history) is that of an uninterrupted run, bit for bit.
"""

import argparse
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import torch
from forked import fork_script, status_of
from resuming import checkpoint_differences

import swinv2_mm.models  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
INTERVAL = 3
WAIT_S = 0.15
COMMON = """
optim_wrapper = dict(accumulative_counts=2)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=3, max_keep_ckpts=1))
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
backbone = dict(arch=dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8)))
"""
# Task: config, iterations, what makes it small.
TASKS = {
    'classifier': (
        'classification/swinv2-nano-w8_digits.py',
        45,
        """
model = dict(backbone=backbone, head=dict(in_channels=128))
train_dataloader = dict(batch_size=8, num_workers=2)
train_cfg = dict(max_iters=45, val_interval=6)
val_dataloader = dict(num_workers=0)
default_hooks['checkpoint']['save_best'] = 'accuracy/top1'
""",
    ),
    'segmentor': (
        'segmentation/upernet_swinv2-nano-w8_digits.py',
        24,
        """
model = dict(
    backbone=backbone, decode_head=dict(in_channels=[16, 32, 64, 128]),
    auxiliary_head=dict(in_channels=64))
train_dataloader = dict(batch_size=2, num_workers=1)
train_cfg = dict(max_iters=24, val_interval=24)
""",
    ),
    'detector': (
        'detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
        18,
        """
model = dict(backbone=backbone, neck=dict(in_channels=[16, 32, 64, 128]))
train_dataloader = dict(batch_size=1, num_workers=1)
train_cfg = dict(max_iters=18)
val_dataloader = val_cfg = val_evaluator = None
""",
    ),
}


def slow_saves():
    """Have files written in halves, and named late."""
    from swinv2_mm.engine import saving

    write, publish = saving.save_checkpoint, saving.publish

    def write_slowly(checkpoint, path, **settings):
        write(checkpoint, path, **settings)
        content = Path(path).read_bytes()
        with open(path, 'wb') as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(WAIT_S)
            file.write(content[len(content) // 2 :])
        time.sleep(WAIT_S)

    def publish_slowly(part, path):
        publish(part, path)
        time.sleep(WAIT_S)

    saving.save_checkpoint, saving.publish = write_slowly, publish_slowly


class Training:
    """A training in a process of its own."""

    def __init__(self, config, folder, *arguments):
        self.output, self.status = folder.with_suffix('.txt'), None
        words = (config, '--work-dir', folder, *arguments)
        train = ROOT / 'tools' / 'train.py'
        self.pid = fork_script(train, *words, output=self.output, prepare=slow_saves)

    def is_running(self):
        if self.status is None:
            self.status = status_of(self.pid, is_awaited=False)
            assert not self.status, self.output.read_text()
        return self.status is None

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def found(self, pattern):
        """The last number in its output that follows a pattern, or None."""
        numbers = re.findall(pattern + r' *(\d+)', self.output.read_text())
        return int(numbers[-1]) if numbers else None

    def start(self):
        """The iteration that it has gone on from, or None if it is not there yet."""
        is_anew = 'training starts anew' in self.output.read_text()
        return 0 if is_anew else self.found(r'resumed epoch: 0, iter:')

    def reached(self):
        return self.found(r'Iter\(train\) \[')


def interrupted(config, folder, *, kills, chance):
    """Train to the end with at most so many kills; returns when they were, and what was lost."""
    counts = Counter()
    reached = 0
    while True:
        training = Training(config, folder, '--resume')
        # At start-up, while saving, or whenever it may be.
        (aim,) = chance.choices(('start-up', 'save', 'any'), (1, 2, 3))
        moment = time.monotonic() + chance.uniform(0, 1.5) if aim == 'start-up' else None
        while training.is_running():
            if moment is None and training.reached() is not None:
                if aim == 'any' or any(folder.glob('.*.part')):
                    span_s = 3 * WAIT_S if aim == 'save' else 1.5
                    moment = time.monotonic() + chance.uniform(0, span_s)
            if counts['kills'] < kills and moment is not None and time.monotonic() > moment:
                training.kill()
                counts['kills'] += 1
                counts['in a save'] += any(folder.glob('.*.part'))
                counts['before an iteration'] += training.reached() is None
                break
            time.sleep(0.01)
        start = training.start()
        if start is not None:
            assert 0 <= reached - start <= INTERVAL, (reached, start)
            counts['most iterations lost'] = max(counts['most iterations lost'], reached - start)
            counts['resumed'] += start > 0
            reached = training.reached() or start
        if training.status == 0:
            return counts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('folder', type=Path)
    parser.add_argument('--kills', type=int, nargs=3, default=[16, 9, 7])
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(ROOT)
    args.folder.mkdir(parents=True, exist_ok=True)
    chance, total, begun = random.Random(args.seed), Counter(), time.monotonic()
    for (task, (base, length, text)), kills in zip(TASKS.items(), args.kills, strict=True):
        config = args.folder / f'{task}.py'
        config.write_text(f'_base_ = {str(ROOT / "configs" / base)!r}\n' + COMMON + text)
        whole = args.folder / f'{task}-whole'
        training = Training(config, whole)
        while training.is_running():
            time.sleep(0.05)
        counts, rounds = Counter(), 0
        while counts['kills'] < kills:
            rounds += 1
            folder = args.folder / f'{task}-{rounds}'
            new = interrupted(config, folder, kills=kills - counts['kills'], chance=chance)
            most = max(counts['most iterations lost'], new['most iterations lost'])
            counts = counts + new
            counts['most iterations lost'] = most
            last = f'iter_{length}.pth'
            found = checkpoint_differences(whole / last, folder / last)
            assert not found, (folder, found)
            names = [sorted(p.name for p in f.glob('*.p*')) for f in (whole, folder)]
            assert names[0] == names[1], names
        summary = ', '.join(f'{name} {number}' for name, number in counts.items())
        print(f'{task}, {rounds} x {length} iterations: {summary}', flush=True)
        total += counts
    print(
        f'{total["kills"]} kills, {total["in a save"]} in a save, {total["resumed"]} resumed, '
        f'{time.monotonic() - begun:.0f} s'
    )


if __name__ == '__main__':
    main()
