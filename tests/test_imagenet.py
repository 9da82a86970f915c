"""ImageNet recipes: what each trains with, ImageNet-V2's labels, pre-processing of test images."""

import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, DefaultScope
from PIL import Image
from torch import nn
from torchvision.transforms import functional as F

import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.seeding import Draw
from swinv2_mm.errors import DataError, UserError

FOLDER = ROOT / 'configs' / 'classification'
# Global batch, lr, weight decay, clip, length, warm-up, mixing, layer decay (recipes of the paper's
# appendix, warm-up of fine-tuning by the official configs). In epochs; the last one in steps.
STAGES = {
    'scratch': (1024, 1e-3, 0.05, 5, 300, 20, True, 1.0),
    'mindcv': (1024, 1e-3, 0.05, None, 450, 20, True, 1.0),
    'fine-tuning': (1024, 4e-5, 1e-8, 5, 30, 5, True, 1.0),
    '22k': (4096, 1e-3, 0.1, 5, 90, 5, True, 1.0),
    'g 1k': (576, 2.1e-5, 0.1, 100, 10, 2, False, 1.0),
    'g 22k': (9216, 1.4e-3, 0.1, 100, 227864, 20000, False, 0.87),
}
W16, W12, W40 = (16, 16, 16, 8), (12, 12, 12, 6), (40, 40, 40, 20)
TINY_8, BASE_12, LARGE_12 = (
    'swinv2-tiny-w8-256_in1k',
    'swinv2-base-w12-192_in22k',
    'swinv2-large-w12-192_in22k',
)
GIANT_12 = 'work_dirs/swinv2-g-w12_144xb64_in21k-ext-192/iter_227864.pth'
# Stage, size, pixels, window, drop path, weights to start from.
RECIPES = {
    't-w8_16xb64_in1k-256': ('scratch', 'tiny', 256, 8, 0.2, None),
    't-w16_16xb64_in1k-256': ('scratch', 'tiny', 256, W16, 0.2, None),
    't-w8_8xb128_mindcv_in1k-256': ('mindcv', 'tiny', 256, 8, 0.2, None),
    's-w8_16xb64_pre-norm_in1k-256': ('scratch', 'small', 256, 8, 0.3, None),
    's-w8_16xb64_sandwich-norm_in1k-256': ('scratch', 'small', 256, 8, 0.3, None),
    's-w8_16xb64_dot_in1k-256': ('scratch', 'small', 256, 8, 0.3, None),
    's-w8_16xb64_in1k-256': ('scratch', 'small', 256, 8, 0.3, None),
    's-w16_16xb64_in1k-256': ('scratch', 'small', 256, W16, 0.3, None),
    'b-w8_16xb64_in1k-256': ('scratch', 'base', 256, 8, 0.5, None),
    'b-w16_16xb64_in1k-256': ('scratch', 'base', 256, W16, 0.5, None),
    'b-w12_64xb64_in21k-192': ('22k', 'base', 192, W12, 0.2, None),
    'l-w12_64xb64_in21k-192': ('22k', 'large', 192, W12, 0.2, None),
    'b-w16_16xb64_in21k-pre_in1k-256': ('fine-tuning', 'base', 256, 16, 0.2, BASE_12),
    'l-w16_16xb64_in21k-pre_in1k-256': ('fine-tuning', 'large', 256, 16, 0.2, LARGE_12),
    'b-w24_16xb64_in21k-pre_in1k-384': ('fine-tuning', 'base', 384, 24, 0.2, BASE_12),
    'l-w24_16xb64_in21k-pre_in1k-384': ('fine-tuning', 'large', 384, 24, 0.2, LARGE_12),
    't-w12_16xb64_ft_in1k-384': ('fine-tuning', 'tiny', 384, 12, 0.2, TINY_8),
    't-w16_16xb64_ft_in1k-512': ('fine-tuning', 'tiny', 512, 16, 0.2, TINY_8),
    't-w20_16xb64_ft_in1k-640': ('fine-tuning', 'tiny', 640, 20, 0.2, TINY_8),
    't-w24_16xb64_ft_in1k-768': ('fine-tuning', 'tiny', 768, 24, 0.2, TINY_8),
    'h-w40_72xb8_in1k-640': ('g 1k', 'huge', 640, W40, 0.5, None),
    'g-w40_72xb8_in21k-pre_in1k-640': ('g 1k', 'giant', 640, W40, 0.5, GIANT_12),
    'g-w12_144xb64_in21k-ext-192': ('g 22k', 'giant', 192, W12, 0.3, None),
}
IN1K = sorted(name for name in RECIPES if 'in1k' in name)


def leaf(name):
    return FOLDER / f'swinv2-{name}.py'


def crop_px(pipeline):
    (size,) = [step.scale for step in pipeline if step.type == 'RandomResizedCrop']
    return size


def test_every_imagenet_leaf_is_in_the_table():
    assert {p.stem for p in FOLDER.glob('*_in*k-*.py')} == {f'swinv2-{name}' for name in RECIPES}


@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name):
    stage, arch, size_px, window, drop_path, start = RECIPES[name]
    batch, lr, decay, clip, length, warm_up, mixing, layer_decay = STAGES[stage]
    cfg = Config.fromfile(leaf(name))
    backbone, wrapper = cfg.model.backbone, cfg.optim_wrapper
    assert (backbone.arch, backbone.window_size) == (arch, window)
    assert (backbone.drop_path_rate, backbone.out_indices) == (drop_path, (3,))
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert crop_px(pipeline) == size_px == cfg.image_size_px
    assert {'RandAugment', 'RandomErasing'} < {step.type for step in pipeline}
    augments = [entry.type for entry in cfg.model.get('train_cfg', {}).get('augments', [])]
    assert augments == (['Mixup', 'CutMix'] if mixing else [])
    gpus, per_gpu = map(int, re.search(r'_(\d+)xb(\d+)_', name).groups())
    assert gpus * per_gpu == batch == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_dataloader.batch_size == per_gpu
    assert (wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == (lr, decay)
    assert (wrapper.clip_grad or {}).get('max_norm') == clip
    assert wrapper.constructor == 'SwinV2OptimWrapperConstructor'
    assert wrapper.get('paramwise_cfg', {}).get('layer_decay_rate', 1.0) == layer_decay
    assert length in (cfg.train_cfg.get('max_epochs'), cfg.train_cfg.get('max_iters'))
    rise, fall = cfg.param_scheduler
    assert rise.end == fall.begin == warm_up
    assert fall.end == length and fall.T_max == length - warm_up
    classes = 21841 if '22k' in stage else 1000
    assert cfg.model.head.num_classes == cfg.model.data_preprocessor.num_classes == classes
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.load_from == start


@pytest.mark.parametrize('name', ['t-w8_16xb64_in1k-256', 'h-w40_72xb8_in1k-640'])
def test_learning_rate_over_time(name):
    cfg = Config.fromfile(leaf(name))
    model = nn.Linear(1, 1)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    steps_per_epoch, peak = 10, cfg.optim_wrapper.optimizer.lr
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(entry, _scope_='mmengine'),
            default_args={'optimizer': optimizer, 'epoch_length': steps_per_epoch},
        )
        for entry in cfg.param_scheduler
    ]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    warm = cfg.param_scheduler[0].end * steps_per_epoch
    assert rates[0] == pytest.approx(peak / 1000)
    assert rates[warm] == pytest.approx(peak) == pytest.approx(max(rates))
    assert rates[: warm + 1] == sorted(rates[: warm + 1])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    assert peak / 100 < rates[-1] < 1.2 * peak / 100


def picture(path, *, width=48, height=40, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def imagenet_v2(tmp_path, monkeypatch):
    folder = tmp_path / 'imagenetv2' / 'imagenetv2-matched-frequency-format-val'
    for label in range(12):
        for copy in range(2):
            picture(folder / str(label) / f'{copy}.jpeg', seed=label)
    monkeypatch.setenv('SWINV2_DATA', str(tmp_path))
    return folder


def build(dataset):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(dataset)


def labels(dataset):
    return [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]


def test_imagenet_v2_labels_are_the_folder_numbers(imagenet_v2, monkeypatch):
    monkeypatch.setenv('SWINV2_TEST_SET', 'imagenetv2')
    dataset = build(Config.fromfile(leaf(IN1K[0])).test_dataloader.dataset)
    assert labels(dataset) == [n for n in range(12) for _ in range(2)]
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        assert f'/{sample.gt_label.item()}/' in sample.img_path
    # The trap: a data set that sorts the names as strings takes 10 for class 2.
    by_name = build({'type': 'CustomDataset', 'data_prefix': str(imagenet_v2)})
    assert '/10/' in by_name.get_data_info(4)['img_path'] and labels(by_name)[4] == 2


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda root: (root / 'n01440764').mkdir(), "'n01440764' is not a class number"),
        (lambda root: (root / '13').mkdir(), '1 classes lack a folder, the first is 12'),
        (lambda root: (root / '12').mkdir(), '12 holds no image'),
        (lambda root: root.rename(root.with_name('elsewhere')), 'No such file'),
    ],
)
def test_numbered_folders_refuse(imagenet_v2, make, message):
    make(imagenet_v2)
    with pytest.raises(DataError, match=message):
        build({'type': 'NumberedFolders', 'data_prefix': {'img_path': str(imagenet_v2)}})


@pytest.mark.parametrize('name', IN1K)
def test_imagenet_v2_replaces_the_test_set_only(name, monkeypatch):
    monkeypatch.delenv('SWINV2_TEST_SET', raising=False)
    plain = Config.fromfile(leaf(name))
    assert plain.test_dataloader == plain.val_dataloader
    monkeypatch.setenv('SWINV2_TEST_SET', 'imagenetv2')
    switched = Config.fromfile(leaf(name))
    assert switched.val_dataloader == plain.val_dataloader
    assert switched.train_dataloader == plain.train_dataloader
    assert switched.test_dataloader.dataset.type == 'NumberedFolders'
    assert switched.test_dataloader.dataset.pipeline == plain.val_dataloader.dataset.pipeline


def test_unknown_test_set_is_named(monkeypatch):
    monkeypatch.setenv('SWINV2_TEST_SET', 'imagenetv3')
    with pytest.raises(UserError, match='imagenetv3'):
        load_config(str(leaf(IN1K[0])))


def test_both_layouts_of_the_validation_set(tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(tmp_path))
    val = tmp_path / 'imagenet' / 'val'
    source = picture(tmp_path / 'picture.jpg')
    for label in range(1000):
        folder = val / f'n{label:08d}'
        folder.mkdir(parents=True)
        (folder / f'{label}.JPEG').symlink_to(source)
    cfg = Config.fromfile(leaf('t-w8_16xb64_in1k-256')).val_dataloader.dataset
    assert labels(build(cfg)) == list(range(1000))

    for label in range(3):
        (val / f'flat_{label}.JPEG').symlink_to(source)
    (tmp_path / 'imagenet' / 'meta').mkdir()
    lines = [f'flat_{label}.JPEG {990 + label}\n' for label in range(3)]
    (tmp_path / 'imagenet' / 'meta' / 'val.txt').write_text(''.join(lines))
    assert labels(build(cfg)) == [990, 991, 992]


@pytest.mark.parametrize('name', ['t-w8_16xb64_in1k-256', 't-w12_16xb64_ft_in1k-384'])
def test_test_image_is_that_of_the_official_code(name, imagenet_v2, monkeypatch):
    monkeypatch.setenv('SWINV2_TEST_SET', 'imagenetv2')
    path = picture(imagenet_v2 / '0' / '0.png', width=501, height=375)
    cfg = Config.fromfile(leaf(name))
    dataset = build(cfg.test_dataloader.dataset)
    (found,) = [
        dataset[i]['inputs'] for i in range(4) if dataset.get_data_info(i)['img_path'] == str(path)
    ]
    size = cfg.image_size_px
    image = Image.open(path)
    bicubic = F.InterpolationMode.BICUBIC
    if size == 256:
        expected = F.center_crop(F.resize(image, int(256 / 224 * size), bicubic), size)
    else:
        expected = F.resize(image, (size, size), bicubic)
    # Ours is BGR until the data preprocessor.
    expected = F.pil_to_tensor(expected).flip(0)
    assert found.shape == (3, size, size)
    assert torch.equal(found, expected)


def test_augmentation_depends_on_the_draw_alone(tmp_path):
    cfg = Config.fromfile(leaf('t-w8_16xb64_in1k-256'))
    picture(tmp_path / 'a' / '0.png', width=300, height=200)
    dataset = build(
        {
            'type': 'CustomDataset',
            'data_prefix': str(tmp_path),
            'pipeline': cfg.train_dataloader.dataset.pipeline,
        }
    )
    one, other, again = (dataset[Draw(0, entropy)]['inputs'] for entropy in ((1,), (2,), (1,)))
    assert one.shape == (3, 256, 256)
    assert torch.equal(one, again) and not torch.equal(one, other)
