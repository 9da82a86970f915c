"""The mistakes that beginners make most: what check finds, and what a training says or does."""

import json
import re

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from test_bad_settings import NARROW, SEGMENTOR
from test_class_names import (
    NAMES,
    SIDE_PX,
    Guarded,
    coco_config,
    folder_config,
    map_config,
)
from test_tools import CLASSIFIER, TINY

from swinv2_mm.checkpoint.reading import open_weights
from swinv2_mm.config.datasets import check_data, image_folders
from swinv2_mm.config.file import load_config
from swinv2_mm.data_check.survey import survey
from swinv2_mm.engine.failures import explanation
from swinv2_mm.engine.filling import fill_model
from swinv2_mm.engine.launch import build_runner
from swinv2_mm.errors import DataError, UserError

LOAD = dict(type='LoadCheckedImage')
LOAD_MAP = dict(type='LoadCheckedAnnotations')
SIDES = (SIDE_PX,) * 3


def change_annotations(cfg, change):
    """Apply ``change`` to every annotation of the training, and to every image."""
    path = cfg.train_dataloader.dataset.ann_file
    with open(path) as file:
        content = json.load(file)
    for number, annotation in enumerate(content['annotations']):
        change(annotation, number)
    with open(path, 'w') as file:
        json.dump(content, file)
    return cfg


def as_corners(annotation, number):
    x, y = 2 + 3 * number, 2 + 2 * number
    annotation['bbox'] = [x, y, x + 8, y + 8]


def as_fractions(annotation, number):
    annotation['bbox'] = [value / SIDE_PX for value in annotation['bbox']]


def without_area(annotation, number):
    annotation.pop('area')
    annotation.pop('iscrowd')


def lists_of_labels(root, first):
    cfg = folder_config(root, classes=NAMES)
    lines = [f'{name}/image.png {n}' for n, name in enumerate(NAMES, start=first)]
    (root / 'list.txt').write_text('\n'.join(lines))
    cfg.train_dataloader.dataset.ann_file = str(root / 'list.txt')
    return cfg


def moved_images(root):
    cfg = coco_config(root, sides=SIDES, pipeline=[LOAD])
    cfg.train_dataloader.dataset.data_prefix.img = str(root / 'elsewhere')
    (root / 'elsewhere').mkdir()
    return cfg


def val_in_train(root):
    cfg = coco_config(root, sides=SIDES)
    cfg.val_dataloader.dataset.data_prefix.img = str(root / 'train')
    return cfg


def empty_class(root):
    cfg = folder_config(root)
    (root / 'train' / 'bee' / 'image.png').unlink()
    return cfg


def colour_maps(root):
    pixels = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    return map_config(root, pixels, pipeline=[LOAD, LOAD_MAP])


def windows_paths(root):
    cfg = coco_config(root, sides=SIDES)
    path = cfg.train_dataloader.dataset.ann_file
    content = json.loads(open(path).read())
    for image in content['images']:
        image['file_name'] = f'.\\{image["file_name"]}'
    with open(path, 'w') as file:
        json.dump(content, file)
    return cfg


# What makes the mistake, what check finds, and words of what the training refuses or logs.
MISTAKES = {
    'images that moved': (moved_images, 'image-missing', 'does not exist'),
    'validation inside training': (
        val_in_train,
        'image-repeated-in-train',
        '3 of its 3 images are trained on',
    ),
    'class without images': (empty_class, 'class-never-seen', "1 without labels: 'bee'"),
    'labels off by one': (
        lambda root: lists_of_labels(root, 1),
        'label-out-of-range',
        'number classes from 0',
    ),
    'colour masks': (colour_maps, 'label-map-mode', 'save one channel of class numbers'),
    'boxes as corners': (
        lambda root: change_annotations(coco_config(root, sides=SIDES), as_corners),
        'boxes-are-corners',
        r'not \[x1, y1, x2, y2\]',
    ),
    'boxes as fractions': (
        lambda root: change_annotations(coco_config(root, sides=SIDES), as_fractions),
        'boxes-are-fractions',
        r'\[x, y, width, height\] in pixels',
    ),
    'annotations without area': (
        lambda root: change_annotations(coco_config(root, sides=SIDES), without_area),
        'annotation-incomplete',
        'lacks area, iscrowd',
    ),
    'paths of Windows': (windows_paths, None, 'read as slashes'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_mistake_in_the_data(name, tmp_path):
    make, kind, words = MISTAKES[name]
    cfg = make(tmp_path)
    found = {f.kind for f in survey(cfg, config='the config', progress=False).findings}
    assert kind is None or kind in found, found
    loaders = ['train', 'val'] if cfg.get('val_dataloader') else ['train']
    said = ''
    try:
        guarded = Guarded(cfg, loaders, tmp_path / 'work')
        said = '\n'.join(guarded.lines)
        guarded.sets['train'][0]
    except DataError as error:
        said = str(error)
    assert re.search(words, said), said


def test_wrong_folder(tmp_path):
    cfg = folder_config(tmp_path)
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    with pytest.raises(DataError, match='SWINV2_DATA'):
        check_data(cfg, ['train_dataloader'])


def test_masks_with_a_palette(tmp_path):
    """Their pixels are numbers of colours, which are the classes: the colours do not count."""
    pixels = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    pixels[:9] = 1
    cfg = map_config(tmp_path, pixels, pipeline=[LOAD, LOAD_MAP])
    for path in (tmp_path / 'maps').iterdir():
        with Image.open(path) as image:
            image.putpalette([200, 10, 10, 10, 10, 200])
            image.save(path)
    sample = Guarded(cfg, ['train'], tmp_path / 'work').sets['train'][0]
    assert np.array_equal(sample['gt_seg_map'], pixels)


def test_images_of_several_sizes(tmp_path):
    """They are padded to the largest of their batch."""
    from mmpretrain.registry import MODELS

    preprocessor = MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', to_rgb=True))
    sizes = ((3, 40, 60), (3, 64, 50))
    batch = preprocessor({'inputs': [torch.ones(size, dtype=torch.uint8) for size in sizes]})
    assert batch['inputs'].shape == (2, 3, 64, 60)


def test_learning_rate_of_another_batch(use_data, tmp_path):
    options = [*TINY, 'train_dataloader.batch_size=2', 'auto_scale_lr.base_batch_size=16']
    for number, change in enumerate((['accumulate=8'], [])):
        cfg = load_config(str(CLASSIFIER), [*options, *change])
        runner = build_runner(cfg, work_dir=tmp_path / str(number))
        wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(wrapper, runner.auto_scale_lr)
        (log,) = tmp_path.glob(f'{number}/*/*.log')
        assert ('meant for 16 images per update, and there are 2' in log.read_text()) == number
        assert wrapper.optimizer.param_groups[0]['lr'] == cfg.optim_wrapper.optimizer.lr


@pytest.mark.parametrize('is_start', [True, False])
def test_weights_of_another_task(is_start, tmp_path):
    cfg = load_config(str(CLASSIFIER), TINY)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        weights = MODELS.build(cfg.model).state_dict()
    cfg = load_config(str(SEGMENTOR), [NARROW, 'model.decode_head.in_channels=[16,32,64,128]'])
    with DefaultScope.overwrite_default_scope('mmseg'):
        segmentor = MODELS.build(cfg.model)
    before = segmentor.state_dict()['backbone.patch_embed.proj.weight'].clone()
    with pytest.raises(UserError, match=r'does not fit the model of this config.*head\.fc'):
        fill_model(segmentor, open_weights({'state_dict': weights}), is_start=is_start)
    assert torch.equal(segmentor.state_dict()['backbone.patch_embed.proj.weight'], before)


@pytest.mark.parametrize('value', ['nan', '-inf'])
def test_weights_of_a_training_that_diverged(value):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(load_config(str(CLASSIFIER), TINY).model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights['head.fc.weight'][0, 0] = float(value)
    for source in (weights, {'state_dict': weights}):
        with pytest.raises(UserError, match=r'NaN.*head\.fc\.weight'):
            fill_model(model, open_weights(source), is_resumed=True)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_image_folders_are_not_those_of_label_maps(use_data):
    for folder in image_folders(load_config(str(SEGMENTOR)), 'test_dataloader'):
        assert 'annotations' not in folder and 'masks' not in folder


def test_too_little_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    for error in (caught.value, MemoryError(), torch.OutOfMemoryError('CUDA out of memory.')):
        text = explanation(error)
        assert 'batch_size' in text and '\n' not in text
    assert explanation(RuntimeError('a bug')) is None
