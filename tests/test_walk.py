"""The whole way: train each task, then every other tool on exactly what that training left."""

import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file

from swinv2_mm.core import SwinTransformerV2
from swinv2_mm.demo_page.model_shelf import ModelShelf, find_models

LEAVES = {
    'classification': 'configs/classification/swinv2-nano-w8_digits.py',
    'segmentation': 'configs/segmentation/upernet_swinv2-nano-w8_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
}
# Narrow and shallow; windows of the first stage are shifted.
NARROW = 'model.backbone.arch=dict(embed_dim=16,depths=(2,1,1,1),num_heads=(1,2,4,8))'
HEADS = {
    'classification': ['model.head.in_channels=128'],
    'segmentation': [
        'model.decode_head.in_channels=[16,32,64,128]', 'model.auxiliary_head.in_channels=64',
    ],
    'detection': ['model.neck.in_channels=[16,32,64,128]'],
}  # fmt: skip
METRIC = {'classification': 'accuracy/top1', 'segmentation': 'mIoU', 'detection': 'coco/bbox_mAP'}
NUM_ITERS = 2
SMALL_BATCHES = [
    f'+{loader}_dataloader.{key}={value}'
    for loader in ('train', 'val', 'test')
    for key, value in (('batch_size', 2), ('num_workers', 0), ('persistent_workers', False))
]
SHORT = [
    f'train_cfg.max_iters={NUM_ITERS}',
    f'train_cfg.val_interval={NUM_ITERS}',
    f'default_hooks.checkpoint.interval={NUM_ITERS}',
    'default_hooks.logger.interval=1',
    NARROW,
    *SMALL_BATCHES,
]


class Training:
    """The work dir of a training, and ways to run tools on what is in it.

    Attributes:
        known: What the trained checkpoint gives, by arguments: other layouts must give the same.
    """

    def __init__(self, task, folder, known, run):
        self.task, self.folder, self.known, self._run = task, folder, known, run
        self.work_dir = folder / 'work_dir'
        self.config = self.work_dir / LEAVES[task].rpartition('/')[2]
        self.checkpoint = self.work_dir / f'iter_{NUM_ITERS}.pth'

    def run(self, tool, *arguments):
        """Run a tool; it must succeed, and leave the saved config as it is."""
        before = self.config.read_bytes() if self.config.exists() else None
        status, errors = self._run(tool, *arguments)
        assert status == 0, errors
        assert 'Traceback' not in errors
        if before is not None:
            assert self.config.read_bytes() == before, f'{tool} wrote over the saved config'
        return self._run.printed

    def scores(self, weights, *arguments):
        out = self.folder / 'scores.json'
        self.run(
            'test', self.config, weights, '--out', out, '--work-dir', self.work_dir, *arguments
        )
        return json.loads(out.read_text())['metrics']

    def predictions(self, weights, images, out):
        """Labels and scores by image; only our own checkpoints say what the classes are called."""
        options = ['--config', self.config, '--weights', weights, '--out', out, '--no-pictures']
        self.run('infer', images, *options)
        lines = (out / 'predictions.jsonl').read_text().splitlines()
        return [[(c['label'], c['score']) for c in json.loads(line)['best']] for line in lines]

    def of_checkpoint(self, get, *arguments):
        """What ``get`` returns for the trained checkpoint, computed once."""
        key = (get.__name__, arguments)
        if key not in self.known:
            self.known[key] = get(self.checkpoint, *arguments)
        return self.known[key]

    def converted(self, layout):
        """The weights in another layout; ``tensors`` is a plain safetensors file of all of them."""
        if layout == 'checkpoint':
            return self.checkpoint
        if layout == 'tensors':
            path = self.folder / 'tensors.safetensors'
            save_file(torch.load(self.checkpoint, weights_only=False)['state_dict'], path)
            return path
        suffix = '' if layout == 'huggingface' else '.safetensors'
        path = self.folder / f'{layout}{suffix}'
        if not path.exists():
            self.run('checkpoint', 'convert', self.checkpoint, path, '--layout', layout)
        return path


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    draw = np.random.default_rng(0)
    for name, size in (('wide.jpg', (70, 110)), ('tall.png', (120, 64))):
        Image.fromarray(draw.integers(0, 255, (*size, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope='session')
def work_dirs():
    """What has been trained already, by task: one training serves all tools."""
    return {}


@pytest.fixture(params=LEAVES)
def training(request, work_dirs, tool, use_data, tmp_path_factory):
    return trained(request.param, work_dirs, tool, tmp_path_factory)


def trained(task, work_dirs, tool, tmp_path_factory):
    if task not in work_dirs:
        new = Training(task, tmp_path_factory.mktemp(task), {}, tool)
        options = [*SHORT, *HEADS[task]]
        new.run('train', LEAVES[task], '--work-dir', new.work_dir, '--cfg-options', *options)
        work_dirs[task] = new.folder, new.known
    return Training(task, *work_dirs[task], tool)


def test_test(training):
    assert METRIC[training.task] in training.scores(training.checkpoint)


def test_test_with_pictures(training, tmp_path):
    training.scores(training.checkpoint, '--show-dir', tmp_path / 'drawn')
    assert list((tmp_path / 'drawn').rglob('*.[jp][pn]g'))


def test_tta(training):
    assert METRIC[training.task] in training.scores(training.checkpoint, '--tta')


def test_infer(training, photographs, tmp_path):
    out = tmp_path / 'predictions'
    options = ['--config', training.config, '--weights', training.checkpoint, '--out', out]
    training.run('infer', photographs, *options)
    assert len((out / 'predictions.jsonl').read_text().splitlines()) == 2


def test_report(training, tmp_path):
    page = tmp_path / 'report.html'
    training.run('report', training.work_dir, '--out', page)
    assert page.stat().st_size > 1000


def test_export(training, photographs, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    path = tmp_path / 'model.onnx'
    size = ['--shape', '128', '128', '--images', photographs, '--num-images', '2']
    training.run('export', training.config, training.checkpoint, path, *size)
    session = onnxruntime.InferenceSession(str(path))
    for output in session.run(None, {'images': np.zeros((1, 3, 128, 128), np.float32)}):
        assert np.isfinite(output).all()


def test_demo_page(training):
    (choice,), _ = find_models(training.folder)
    image = np.zeros((80, 90, 3), np.uint8)
    _, picture = ModelShelf([choice], device='cpu').predict(
        0, image, window_size=None, score_threshold=0.3
    )
    assert picture.ndim == 3


def test_resume(training, tmp_path):
    work_dir = tmp_path / 'copied'
    shutil.copytree(training.work_dir, work_dir)
    longer = [f'train_cfg.max_iters={NUM_ITERS + 1}', 'train_cfg.val_interval=100']
    config = work_dir / training.config.name
    training.run('train', config, '--work-dir', work_dir, '--resume', '--cfg-options', *longer)
    assert (work_dir / f'iter_{NUM_ITERS + 1}.pth').exists()
    assert Config.fromfile(config).train_cfg.max_iters == NUM_ITERS + 1


def test_checkpoint_tool(training):
    assert 'log_cpb' in training.run('checkpoint', 'inspect', training.checkpoint)
    backbone = training.converted('official')
    assert training.run('checkpoint', 'inspect', backbone)


def test_complexity(training):
    # The pictures of the classifier's data set are not resized: nothing says how large they are.
    size = ['--shape', '64', '64'] if training.task == 'classification' else []
    assert 'parameters' in training.run(
        'analysis/complexity', training.config, '--no-memory', *size
    )


LAYOUTS = ('checkpoint', 'tensors', 'own', 'official', 'timm', 'huggingface')


@pytest.fixture(params=LAYOUTS)
def classifier(request, work_dirs, tool, use_data, tmp_path_factory):
    """A trained classifier and its weights in one of the layouts."""
    training = trained('classification', work_dirs, tool, tmp_path_factory)
    return training, training.converted(request.param)


@pytest.mark.parametrize('window', [[], ['--window-size', '4']], ids=['', 'window'])
def test_layout_test(classifier, window):
    training, weights = classifier
    assert training.scores(weights, *window) == training.of_checkpoint(training.scores, *window)


def test_layout_infer(classifier, photographs, tmp_path):
    training, weights = classifier
    own = training.of_checkpoint(training.predictions, photographs, training.folder / 'predictions')
    assert training.predictions(weights, photographs, tmp_path) == own


def test_layout_report(classifier, tmp_path):
    training, weights = classifier
    page = tmp_path / 'report.html'
    training.run('report', training.work_dir, '--checkpoint', weights, '--out', page)
    assert page.exists()


def test_layout_export(classifier, photographs, tmp_path):
    training, weights = classifier
    # ONNX takes many times longer, and is written of every task above.
    options = ['--format', 'torch-export', '--shape', '64', '64']
    options += ['--images', photographs, '--num-images', '1']
    training.run('export', training.config, weights, tmp_path / 'model.pt2', *options)
    assert (tmp_path / 'model.pt2').exists()


def test_layout_init_cfg(classifier):
    training, weights = classifier
    arch = Config.fromfile(training.config).model.backbone
    arch.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    from mmengine.registry import MODELS

    backbone = MODELS.build(arch)
    backbone.init_weights()
    assert isinstance(backbone, SwinTransformerV2)
    assert any(
        p.abs().max() > 0 for n, p in backbone.named_parameters() if n.endswith('norm1.weight')
    )


def test_layout_load_from(classifier, tmp_path):
    training, weights = classifier
    options = [*SHORT, *HEADS['classification'], f'load_from={str(weights)!r}']
    training.run(
        'train', LEAVES['classification'], '--work-dir', tmp_path, '--cfg-options', *options
    )


@pytest.mark.parametrize('layout', ['official', 'timm', 'huggingface'])
def test_backbone_alone_cannot_be_tested(layout, work_dirs, tool, use_data, tmp_path_factory):
    detector = trained('detection', work_dirs, tool, tmp_path_factory)
    status, errors = tool('test', detector.config, detector.converted(layout))
    assert status == 1
    assert 'has no weights for' in errors and 'Traceback' not in errors


@pytest.mark.parametrize('task', ['segmentation', 'detection'])
def test_plain_safetensors_of_a_whole_model(task, work_dirs, tool, use_data, tmp_path_factory):
    training = trained(task, work_dirs, tool, tmp_path_factory)
    assert training.scores(training.converted('tensors')) == training.scores(training.checkpoint)
