"""Leaves for a user's data, written from a look at it: they load, are short, and train."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import swinv2_mm.models  # noqa: F401
from swinv2_mm.cli.commands.check import check
from swinv2_mm.cli.commands.new import TASKS, new
from swinv2_mm.cli.commands.test import test as run_test
from swinv2_mm.cli.commands.train import train
from swinv2_mm.config.file import load_config
from swinv2_mm.errors import UserError

METRICS = {
    'detection': 'coco/segm_mAP',
    'segmentation': 'mIoU',
    'classification': 'accuracy/top1',
}
NUM_CLASSES = {'detection': 10, 'segmentation': 11, 'classification': 10}
SHORT = [
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'val_dataloader.num_workers=0',
    'test_dataloader.num_workers=0',
]
SHORT_ITERATIONS = [*SHORT, 'train_cfg.max_iters=2', 'train_cfg.val_interval=2']
SHORT_EPOCHS = [*SHORT, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']


def shortened(task):
    return SHORT_EPOCHS if task == 'classification' else SHORT_ITERATIONS


@pytest.fixture
def place(digits_root, tmp_path, monkeypatch):
    """A folder with links to a copy of the digits, as a user would have them."""
    shutil.copytree(digits_root / 'digits', tmp_path / 'disk')
    place = tmp_path / "Bob's café"
    (place / 'street').mkdir(parents=True)
    for path in (tmp_path / 'disk').iterdir():
        (place / 'street' / path.name).symlink_to(path)
    (place / 'street' / 'up').symlink_to(place)
    monkeypatch.chdir(place)
    return place


def numbers_of_classes(node):
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == 'num_classes':
            yield value
        elif isinstance(value, (dict, list)):
            yield from numbers_of_classes(value)


@pytest.mark.parametrize('small', [True, False], ids=['small', 'full'])
@pytest.mark.parametrize('task', TASKS)
def test_leaf_is_short_and_names_everything_once(task, small, place):
    leaf = new(task, data='street', small=small)
    lines = [line for line in leaf.read_text().splitlines() if not line.startswith('#')]
    assert len(lines) <= 12
    text = '\n'.join(lines)
    for once in ("'zero'", 'street', 'train.json', 'val.json'):
        assert text.count(once) <= 1
    cfg = load_config(str(leaf))
    assert set(numbers_of_classes(cfg.model.to_dict())) == {NUM_CLASSES[task]}
    datasets = [cfg[f'{name}_dataloader'].dataset for name in ('train', 'val', 'test')]
    assert datasets[1] == datasets[2] and datasets[0] != datasets[1]
    for dataset in datasets:
        assert len(dataset.metainfo.classes) == NUM_CLASSES[task]
        assert dataset.data_root == str(place / 'street')


@pytest.mark.parametrize('task', TASKS)
def test_leaf_is_checked_trained_and_tested(task, place):
    leaf = new(task, data='street', small=True)
    found = check(str(leaf), num_images=2)
    assert not found.findings.count('error')
    train(str(leaf), work_dir='run', options=shortened(task))
    (weights,) = place.glob('run/*_*.pth')
    assert METRICS[task] in run_test(str(leaf), str(weights), work_dir='again', options=SHORT[1:])


LIBRARIES = {'detection': 'mmdet', 'segmentation': 'mmseg', 'classification': 'mmpretrain'}


@pytest.mark.parametrize('task', TASKS)
def test_tools_of_the_libraries_train_the_leaf(task, place):
    """Their own tools/train.py, which knows nothing of this package before it reads the leaf."""
    leaf = new(task, data='street', small=True)
    tool = Path(find_spec(LIBRARIES[task]).origin).parent / '.mim' / 'tools' / 'train.py'
    loaders = [
        f'{name}_dataloader.{entry}'
        for name in ('train', 'val', 'test')
        for entry in ('num_workers=0', 'persistent_workers=False')
    ]
    done = subprocess.run(
        [
            *(sys.executable, str(tool), str(leaf), '--work-dir', 'run'),
            *('--cfg-options', *shortened(task), *loaders),
        ],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert METRICS[task] in done.stdout + done.stderr
    assert list((place / 'run').glob('*_*.pth'))


def test_boxes_only_take_a_recipe_without_masks(place):
    for path in (place / 'street' / 'annotations').iterdir():
        content = json.loads(path.read_text())
        for annotation in content['annotations']:
            del annotation['segmentation']
        path.write_text(json.dumps(content))
    cfg = load_config(str(new('detection', data='street')))
    assert cfg.model.type == 'DINO' and cfg.model.bbox_head.num_classes == 10


def test_label_maps_with_other_names(tmp_path, monkeypatch):
    """A suffix before the extension, test for validation, folders in the other order, no names."""
    monkeypatch.chdir(tmp_path)
    for split in ('train', 'test'):
        for kind in ('photos', 'masks'):
            (tmp_path / 'roofs' / split / kind).mkdir(parents=True)
        for number in range(2):
            values = np.zeros((32, 32), np.uint8)
            values[:16, :16] = 2
            image = Image.fromarray(np.zeros((32, 32, 3), np.uint8))
            image.save(tmp_path / 'roofs' / split / 'photos' / f'a_{number}.png')
            name = f'a_{number}_mask.png'
            Image.fromarray(values).save(tmp_path / 'roofs' / split / 'masks' / name)
    cfg = load_config(str(new('segmentation', data='roofs')))
    dataset = cfg.train_dataloader.dataset
    assert dataset.metainfo.classes == ('class_0', 'class_1', 'class_2')
    assert (dataset.img_suffix, dataset.seg_map_suffix) == ('.png', '_mask.png')
    assert dataset.data_prefix == dict(img_path='train/photos', seg_map_path='train/masks')
    assert cfg.val_dataloader.dataset.data_prefix.img_path == 'test/photos'
    assert not check('roofs.py').findings.count('error')


@pytest.mark.parametrize('task', TASKS)
def test_folder_without_a_data_set(task, tmp_path):
    with pytest.raises(UserError, match='training'):
        new(task, data=tmp_path, out=tmp_path / 'a.py')


def test_masks_of_0_and_255_are_refused(place):
    for path in (place / 'street' / 'label_maps').rglob('*.png'):
        values = np.asarray(Image.open(path))
        Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match='255'):
        new('segmentation', data='street')


def test_classes_beside_folders_that_are_none(place):
    folders = place / 'street' / 'folders'
    (folders / 'train' / '.ipynb_checkpoints').mkdir()
    new('classification', data='street')
    (folders / 'train' / 'ten').mkdir()
    with pytest.raises(UserError, match='ten'):
        new('classification', data='street', out='b.py')


def test_module_of_the_user_that_is_not_found(place):
    (place / 'a.py').write_text("custom_imports = dict(imports=['swinv2_mm.models', 'mine'])\n")
    with pytest.raises(UserError, match='PYTHONPATH') as found:
        load_config('a.py')
    assert "'mine'" in str(found.value)


def test_file_that_exists_and_recipes_that_do_not_fit(place):
    leaf = new('detection', data='street')
    with pytest.raises(UserError, match='exists'):
        new('detection', data='street')
    with pytest.raises(UserError, match='ends in'):
        new('detection', data='street', out='b')
    with pytest.raises(UserError, match='not for segmentation'):
        new(
            'segmentation',
            data='street',
            out='b.py',
            recipe='detection/mask-rcnn_swinv2-t-w16_fpn_1x_coco.py',
        )
    with pytest.raises(UserError, match='heads'):
        new(
            'detection',
            data='street',
            out='b.py',
            recipe='detection/mask2former_swinv2-t-w16_8xb2-lsj-50e_coco.py',
        )
    assert leaf.exists() and not (place / 'b.py').exists()
