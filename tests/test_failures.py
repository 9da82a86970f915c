"""What the machine does to a training: one clear line, no traceback, nothing lost."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from multiprocessing import resource_sharer
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import only_line
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from resuming import checkpoint_differences
from test_runner import SMALL
from test_saving import STEPS, checkpoints
from test_tools import CLASSIFIER

from swinv2_mm.engine.failures import explanation
from swinv2_mm.errors import UserError
from swinv2_mm.inference.class_names import Classes
from swinv2_mm.inference.output_folder import OutputFolder
from swinv2_mm.inference.sources import Source

OPTIONS = [o for o in SMALL if not o.startswith(('train_cfg.', 'default_hooks.'))] + STEPS
OPTIONS.append('default_hooks.checkpoint.max_keep_ckpts=1')


@pytest.fixture
def train(tool, use_data):
    def run(folder, *arguments, options=()):
        return tool(
            'train', CLASSIFIER, '--work-dir', folder, *arguments,
            '--cfg-options', *OPTIONS, *options,
        )  # fmt: skip

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', disk]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('may not mount a file system here')
    yield disk
    subprocess.run(['umount', disk], check=True)


def fill(disk, *, leave_bytes):
    free_bytes = shutil.disk_usage(disk).free
    (disk / 'filler').write_bytes(bytes(free_bytes - leave_bytes))


@pytest.mark.parametrize('room', [0.5, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_full_disk(room, train, small_disk, tmp_path):
    assert train(small_disk / 'run', options=['train_cfg.max_iters=2'])[0] == 0
    before = (small_disk / 'run' / 'iter_2.pth').read_bytes()
    fill(small_disk, leave_bytes=int(room * len(before)))
    status, errors = train(small_disk / 'run', '--resume')
    line = only_line(errors)
    assert status == 1 and 'No space left' in line and '--resume' in line
    assert checkpoints(small_disk / 'run') == ['iter_2.pth']
    assert (small_disk / 'run' / 'iter_2.pth').read_bytes() == before
    (small_disk / 'filler').unlink()
    assert train(small_disk / 'run', '--resume')[0] == train(tmp_path / 'whole')[0] == 0
    last = [folder / 'iter_6.pth' for folder in (small_disk / 'run', tmp_path / 'whole')]
    assert checkpoint_differences(*last) == []


@pytest.mark.parametrize('suffix', ['.tif', '.png'])
def test_a_full_disk_under_a_label_map(suffix, small_disk):
    """GDAL reports nothing of what it cannot write on closing: half a file looked like a whole."""
    side, place = 600, {}
    if suffix == '.tif':
        affine = pytest.importorskip('rasterio').Affine
        place = {'crs': 'EPSG:2056', 'transform': affine(0.1, 0, 2_600_000, 0, -0.1, 1_200_000)}
    image = SimpleNamespace(size=(side, side), georeference=place)
    classes = Classes(tuple(map(str, range(256))), ((0, 0, 0),) * 256)
    labels = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
    output = OutputFolder(small_disk / 'out', run={}, resume=False)

    def write():
        source = Source('a', 'a')
        with output.label_map_writer(image, source=source, classes=classes) as writer:
            for top in range(0, side, 256):
                writer.write(labels[top : top + 256])

    fill(small_disk, leave_bytes=side * side // 2)
    with pytest.raises(UserError, match=rf'a\{suffix} cannot be written: .*(disk|space)'):
        write()
    assert not list((small_disk / 'out' / 'label_maps').iterdir())
    (small_disk / 'filler').unlink()
    write()
    assert [file.name for file in (small_disk / 'out' / 'label_maps').iterdir()] == [f'a{suffix}']
    output.close()


def test_a_disk_that_may_not_be_written(train, small_disk):
    subprocess.run(['mount', '-o', 'remount,ro', small_disk], check=True)
    status, errors = train(small_disk / 'run')
    assert status == 1 and 'Read-only file system' in only_line(errors)


@pytest.fixture
def as_nobody(use_data, tmp_path):
    """Root may write anywhere: be somebody else, who may read what a test needs."""
    if os.geteuid() == 0:
        for folder in (*use_data.parents, *tmp_path.parents, use_data, tmp_path):
            if folder.is_relative_to(tempfile.gettempdir()):
                folder.chmod(folder.stat().st_mode | 0o055)
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_a_folder_that_may_not_be_written(as_nobody, train, tmp_path):
    status, errors = train(tmp_path / 'run')
    line = only_line(errors)
    assert status == 1 and f'{tmp_path / "run"}: Permission denied' in line, line


@TRANSFORMS.register_module()
class DeadWorker(BaseTransform):
    """Kills the worker that draws a sample, as the kernel does when memory runs out."""

    def transform(self, results):
        if results['sample_idx'].entropy[-1] == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return results


def test_a_dead_worker(train, tmp_path):
    pipeline = [{'type': name} for name in ('LoadCheckedImage', 'DeadWorker', 'PackInputs')]
    options = [f'train_dataloader.dataset.pipeline={pipeline}'.replace(' ', '')]
    status, errors = train(tmp_path, options=options)
    line = only_line(errors)
    assert status == 1 and 'data loader worker' in line and 'memory' in line
    # How far the worker was ahead is left to chance, and whether a checkpoint was being removed.
    assert checkpoints(tmp_path)[-1] in ('iter_2.pth', 'iter_4.pth')
    assert train(tmp_path, '--resume')[0] == 0


def test_a_worker_that_dies_before_its_tensors_are_fetched(tmp_path):
    address = str(tmp_path / 'worker')
    with socket.socket(socket.AF_UNIX) as worker:
        worker.bind(address)
    with pytest.raises(ConnectionError) as caught:
        resource_sharer._resource_sharer.get_connection((address, 0))
    assert 'data loader worker has died' in explanation(caught.value)
    assert explanation(ConnectionResetError('of something else')) is None


def test_resuming_passes_over_weights_and_clears_up(train, tmp_path):
    assert train(tmp_path, options=['train_cfg.max_iters=2'])[0] == 0
    content = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    # As save_best writes them, later than the checkpoint of the same iteration.
    torch.save({k: content[k] for k in ('meta', 'state_dict')}, tmp_path / 'best_iter_2.pth')
    # What is left of a save that was killed.
    (tmp_path / '.iter_4.pth.part').write_bytes(b'half')
    status, errors = train(tmp_path, '--resume', tmp_path / 'best_iter_2.pth')
    assert status == 1 and 'set load_from' in only_line(errors)
    assert train(tmp_path, '--resume', options=['train_cfg.max_iters=3'])[0] == 0
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'best_iter_2.pth: ' in log and 'resumed epoch: 0, iter: 2' in log
    assert checkpoints(tmp_path) == ['best_iter_2.pth', 'iter_3.pth']


@pytest.mark.parametrize(
    'text',
    [
        '[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer '
        '[127.0.0.1]:26044',
        '[enforce fail at gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 10000ms for '
        'recv operation to complete',
        'NCCL error in: ProcessGroupNCCL.cpp:2045, remote process exited or there was a network '
        'error, NCCL version 2.21.5',
    ],
)
def test_a_lost_process_is_told_from_a_mistake(text):
    assert 'another process' in explanation(RuntimeError(text))
    assert explanation(RuntimeError('shape mismatch in all_reduce of the gloo backend')) is None
