"""Several processes predict for one list of files: each once, whoever is killed."""

import json
import os
import random
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, PixelData
from PIL import Image
from test_distributed import SMALL, free_port
from test_several_processes import Job as Torchrun
from test_tools import CLASSIFIER

from swinv2_mm import SwinV2Inferencer
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import DataError, UserError
from swinv2_mm.inference.batch_prediction import BatchPredictor
from swinv2_mm.inference.class_names import Classes
from swinv2_mm.inference.job import Job, join_job
from swinv2_mm.inference.preparation import LoadedInput
from swinv2_mm.inference.record_index import RecordIndex
from swinv2_mm.inference.sources import Source
from swinv2_mm.inference.writing import PredictionRun

KILLS = 5


class Fake(SwinV2Inferencer):
    """A segmentor that costs nothing but a pause, and notes every image that it is given.

    Every third image has another size, every 50th is broken.
    """

    def __init__(self, notes, *, pause_s=0.0, task='segmentation'):
        self.cfg, self.task = Config({'default_scope': 'mmseg'}), task
        self.classes = Classes(('a', 'b'), ((1, 2, 3), (4, 5, 6)))
        self.notes, self.pause_s = notes, pause_s
        self.model = self
        self._predict = BatchPredictor(self, scope='mmseg', task=self.task, classes=self.classes)

    def _prepare(self, source, number):
        number = number_of(source)
        if number % 50 == 49:
            raise DataError(f'{source} is broken')
        image = np.full((2, 2 + (number % 3 == 0), 3), number % 251, np.uint8)
        data = {'inputs': torch.tensor(image), 'paths': source.path}
        return LoadedInput(source, image, data, image.shape)

    def test_step(self, data):
        images, paths = data['inputs'], data['paths']
        assert len({image.shape for image in images}) == 1
        with self.notes.open('a') as notes:
            notes.write(''.join(f'{path}\n' for path in paths))
        # An image with a high number costs more.
        time.sleep(sum(self.pause_s * number_of(path) for path in paths))
        maps = [PixelData(data=image[None, ..., 0] % 2) for image in images]
        return [BaseDataElement(pred_sem_seg=label_map) for label_map in maps]


def number_of(source):
    return int(os.fspath(source).split('/')[0])


def sources(count):
    """Files in folders of their own, of which many have the same names."""
    return (Source(f'{number}/{number % 7}.png', str(number % 7)) for number in range(count))


def predict(listed, out, *, job=None, resume=False, pause_s=0.0, batch_size=4):
    run = PredictionRun(
        Fake(out.with_suffix('.notes'), pause_s=pause_s), folder=out, settings={},
        batch_size=batch_size, score_threshold=None, resume=resume, total=None, passed_over={},
        job=job,
    )  # fmt: skip
    return run(listed)


def fork_job(size, work, *, launcher='pytorch'):
    """Call ``work(job)`` in processes of a job; returns their ids."""
    port, pids = free_port(), []
    names = ['SLURM_PROCID', 'SLURM_LOCALID'] if launcher == 'slurm' else ['RANK', 'LOCAL_RANK']
    sizes = ['SLURM_NTASKS'] if launcher == 'slurm' else ['WORLD_SIZE', 'LOCAL_WORLD_SIZE']
    for rank in range(size):
        if pid := os.fork():
            pids.append(pid)
            continue
        status = 1
        try:
            os.environ |= {**dict.fromkeys(names, str(rank)), **dict.fromkeys(sizes, str(size))}
            os.environ |= {'MASTER_PORT': str(port)}
            if launcher == 'pytorch':
                os.environ |= {'MASTER_ADDR': '127.0.0.1'}
            # What a killed run says is of no use.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work(join_job(launcher))
            status = 0
        finally:
            os._exit(status)
    return pids


def end(pids):
    """Wait for processes; returns their exit statuses, negative for signals."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def kill(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return end(pids)


def recorded(out):
    """Files that have a complete line."""
    parts = [out / 'predictions.jsonl', *out.glob('.parts/records-*')]
    lines = [line for part in parts if part.exists() for line in part.open() if line[-1:] == '\n']
    return [json.loads(line)['file'] for line in lines]


def noted(out):
    """Images that the model was given, in all runs together."""
    notes = out.with_suffix('.notes')
    return notes.read_text().splitlines() if notes.exists() else []


def contents(out):
    """What a run left, by file."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob('*') if p.is_file()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The results of one process for 300 files."""
    out = tmp_path_factory.mktemp('whole') / 'out'
    summary = predict(sources(300), out)
    assert (summary.num_done, summary.num_failed) == (294, 6)
    return out


def test_one_process_gives_names_and_order_of_the_list(whole):
    records = [json.loads(line) for line in (whole / 'predictions.jsonl').open()]
    expected = [s.path for s in sources(300) if number_of(s) % 50 != 49]
    assert [record['file'] for record in records] == expected
    # The seventh folder with a file of that name, and the eighth.
    assert [r['name'] for r in records if r['file'] in ('47/5.png', '54/5.png')] == ['5-7', '5-8']
    assert not (whole / '.parts').exists()
    assert len(contents(whole)) == 294 + 2


def test_killed_at_random_with_ever_other_numbers_of_processes(whole, tmp_path):
    chance, out = random.Random(0), tmp_path / 'out'
    sizes = [2, 3, 1, 2, 2, 3]
    # In a job of one, its only process takes nothing from the environment of another.
    goals = sorted(chance.sample(range(1, 280), KILLS))
    for size, goal in zip(sizes, [*goals, None], strict=True):
        done, given = recorded(out), len(noted(out))
        pids = fork_job(
            size, lambda job: predict(sources(300), out, job=job, resume=True, pause_s=1e-5)
        )
        if goal is None:
            assert end(pids) == [0] * size
        else:
            limit = time.monotonic() + 60
            while len(recorded(out)) < goal and time.monotonic() < limit:
                time.sleep(0.002)
            assert kill(pids) == [-signal.SIGKILL] * size
        assert not set(done) & set(noted(out)[given:]), 'done twice'
    assert contents(out) == contents(whole)


def test_dear_images_are_shared(whole, tmp_path):
    """A process takes as many as it can do: the second half of the list costs three times."""
    out = tmp_path / 'out'
    assert end(fork_job(2, lambda job: predict(sources(300), out, job=job, pause_s=2e-5))) == [0, 0]
    assert contents(out) == contents(whole)
    assert len(noted(out)) == len(set(noted(out))) == 294


def test_a_list_that_is_still_written(tmp_path):
    """Others work on what has been listed; a mistake in the list ends the job after that."""

    def slow():
        for source in sources(40):
            time.sleep(0.01)
            yield source
        raise UserError('no such folder')

    out = tmp_path / 'out'
    pids = fork_job(2, lambda job: predict(slow() if job.rank == 0 else None, out, job=job))
    assert end(pids) == [1, 0]
    assert len(recorded(out)) == len(set(recorded(out))) == 40
    # Listed rightly, all is there already.
    summary = predict(sources(40), out, resume=True)
    assert summary.num_done == 0 and not (out / '.parts').exists()
    assert recorded(out) == [source.path for source in sources(40)]


def test_resumed_with_another_list(whole, tmp_path):
    """Files that are new come where the list has them; those that it lacks come last."""
    out = tmp_path / 'out'
    shutil.copytree(whole, out)
    new = [Source('400/0.png', '0'), *list(sources(300))[10:], Source('400/0.png', '0')]
    summary = predict(iter(new), out, resume=True)
    assert (summary.num_done, summary.num_failed) == (1, 6)
    files = [source.path for source in sources(300) if number_of(source) % 50 != 49]
    assert recorded(out) == ['400/0.png', *files[10:], *files[:10]]
    names = [json.loads(line)['name'] for line in (out / 'predictions.jsonl').open()]
    assert len(set(names)) == len(names) and set(names[1:]) == {
        json.loads(line)['name'] for line in (whole / 'predictions.jsonl').open()
    }


def test_batches_are_of_one_size_and_results_in_order(tmp_path):
    fake = Fake(tmp_path / 'notes')
    sizes = []
    step = fake.test_step
    fake.test_step = lambda data: (sizes.append(len(data['paths'])), step(data))[1]
    listed = list(sources(48))
    found = [prediction.source for prediction in fake(listed, batch_size=4)]
    assert found == listed
    # 16 of one size and 32 of another, of which no five stand side by side.
    assert sum(sizes) == 48 and len(sizes) <= 14


def test_a_model_that_fails_on_an_image_and_one_that_fails(tmp_path):
    fake = Fake(tmp_path / 'notes')
    step = fake.test_step

    def fail_on(numbers):
        def fail(data):
            if numbers & set(map(number_of, data['paths'])):
                raise RuntimeError('no such kernel')
            return step(data)

        fake.test_step = fail

    failed = []
    listed = list(sources(40))
    fail_on({3, 17, 18})
    found = list(fake(listed, batch_size=4, on_error=lambda *failure: failed.append(failure)))
    assert {number_of(source) for source, _ in failed} == {3, 17, 18} and len(found) == 37
    assert 'no such kernel' in failed[0][1]
    for settings in ({}, {'on_error': lambda *failure: failed.append(failure)}):
        fail_on(set(range(40)))
        with pytest.raises(RuntimeError, match='kernel'):
            list(fake(listed, batch_size=4, **settings))
    assert len(failed) == 3 + 10


def rss_mb():
    pages = int(open('/proc/self/statm').read().split()[1])
    return pages * os.sysconf('SC_PAGESIZE') / 1e6


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='reads Linux memory counts')
@pytest.mark.parametrize('count', [30_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_of_a_long_list(count):
    """Names take no memory, but for a cache of a fixed size."""
    index, before = RecordIndex(), rss_mb()
    for source in sources(count):
        name, is_done = index.enlist(source)
    grown = rss_mb() - before
    print(f'{count} names: {grown:.1f} MB')
    assert name == f'{(count - 1) % 7}-{(count - 1) // 7 + 1}' and not is_done
    assert grown < 30


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='reads Linux memory counts')
def test_memory_of_a_run_over_a_million_files(tmp_path):
    class Names(Fake):
        """Nothing is noted or written but records."""

        def test_step(self, data):
            if (number := number_of(data['paths'][0])) % 50_000 < 8:
                memory.append((number, rss_mb()))
            scores = torch.tensor([0.1, 0.9])
            return [BaseDataElement(pred_score=scores) for _ in data['paths']]

    memory = []
    fake = Names(None, task='classification')
    run = PredictionRun(
        fake, folder=tmp_path / 'out', settings={}, batch_size=8, score_threshold=None,
        resume=False, total=None, passed_over={}, job=Job(),
    )  # fmt: skip
    summary = run(sources(1_000_000))
    assert summary.num_done == 980_000 and summary.num_failed == 20_000
    print(memory, summary)
    # The database of names holds 16 MB.
    assert memory[-1][1] - memory[1][1] < 50


@pytest.mark.slow
def test_torchrun_killed_over_2000_images(tmp_path, subprocess_environment):
    """The command itself: killed as a whole or one of its two processes, five times."""
    count, chance, out = 2000, random.Random(1), tmp_path / 'out'
    write_images(tmp_path / 'in', count)
    write_classifier(tmp_path / 'weights.pth')
    words = [
        'tools/infer.py', tmp_path / 'in', '--config', CLASSIFIER, '--weights',
        tmp_path / 'weights.pth', '--device', 'cpu', '--cfg-options', *SMALL,
    ]  # fmt: skip
    shared = ['tools/torchrun.py', f'--master_port={free_port()}', '--nproc_per_node=2', *words]
    rates = []
    for name, start in {'one': words, 'two': shared}.items():
        command = [sys.executable, *start, '--out', tmp_path / name]
        job = Torchrun(command, tmp_path / f'{name}.txt', subprocess_environment)
        assert job.end(600)[0] == 1, job.output.read_text()
        (line,) = (li for li in job.output.read_text().splitlines() if ' files done, ' in li)
        done, failed, seconds = re.match(
            r'(\d+) files done, (\d+) failed, in ([\d.]+) s', line
        ).groups()
        assert (int(done), int(failed)) == (count - 2, 2)
        rates.append(count / float(seconds))
    print('images/s of 1 and 2 processes: ' + ' '.join(f'{rate:.1f}' for rate in rates))
    assert contents(tmp_path / 'two') == contents(tmp_path / 'one')

    goals = sorted(chance.sample(range(1, count - 50), KILLS))
    for number, goal in enumerate(goals):
        command = [sys.executable, *shared, '--out', out, '--resume']
        job = Torchrun(command, tmp_path / f'{number}.txt', subprocess_environment)
        try:
            limit = time.monotonic() + 300
            while len(recorded(out)) < goal:
                assert job.agent.poll() is None and time.monotonic() < limit, job.output.read_text()
                time.sleep(0.02)
            if number % 2:
                os.kill(job.pid_of(chance.randrange(2)), signal.SIGKILL)
                assert job.end(60)[0] == 1
        finally:
            job.kill()
        print(f'killed {"one of two" if number % 2 else "all"} at {len(recorded(out))} records')
        assert len(recorded(out)) == len(set(recorded(out)))
    command = [sys.executable, *shared, '--out', out, '--resume']
    job = Torchrun(command, tmp_path / 'last.txt', subprocess_environment)
    assert job.end(600)[0] == 1
    print(job.output.read_text())
    assert contents(out) == contents(tmp_path / 'one')


def write_images(folder, count):
    """Tiny images in 50 folders, of equal names; two are broken."""
    for number in range(count):
        path = folder / f'{number % 50:02}' / f'{number // 50}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (24, 24 + number % 3, 3), np.uint8)
        Image.fromarray(values).save(path)
    for number in (7, 1234):
        (folder / f'{number % 50:02}' / f'{number // 50}.png').write_bytes(b'\x89PNG')


def write_classifier(path):
    cfg = load_config(str(CLASSIFIER), SMALL)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)


def test_a_job_of_slurm(whole, tmp_path, monkeypatch):
    """With a stand-in for the command that names the hosts."""
    command = tmp_path / 'bin' / 'scontrol'
    command.parent.mkdir()
    command.write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames n[1-2]" ] && echo localhost && echo n2\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv('PATH', f'{command.parent}:{os.environ["PATH"]}')
    monkeypatch.setenv('SLURM_NODELIST', 'n[1-2]')
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    out = tmp_path / 'out'
    pids = fork_job(2, lambda job: predict(sources(300), out, job=job), launcher='slurm')
    assert end(pids) == [0, 0]
    assert contents(out) == contents(whole)


def test_launchers_that_are_not_there(monkeypatch):
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    with pytest.raises(UserError, match='SLURM_PROCID'):
        join_job('slurm')
    assert join_job('none') == Job()
