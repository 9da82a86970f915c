"""Labels follow the names of classes, in training, testing and reports; what is lost is counted."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

import swinv2_mm.models  # noqa: F401  the stand-in for mmcv's compiled ops
from swinv2_mm.data_check.class_names import check_places
from swinv2_mm.data_check.guard import guard_data, guarded_dataset
from swinv2_mm.data_check.survey import survey
from swinv2_mm.errors import DataError

NAMES = ('ape', 'bee', 'cat', 'dog')
SIDE_PX = 64


def save_image(path, *, side=SIDE_PX):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(path)


def loader(dataset):
    return dict(batch_size=1, dataset=dataset)


class Guarded:
    """The data sets of a config as a run has them, and what the run logs."""

    def __init__(self, cfg, loaders, folder):
        self.lines, self.hooks = [], []
        logger = logging.getLogger(str(folder))
        logger.setLevel('INFO')
        logger.handlers = [logging.Handler()]
        logger.handlers[0].emit = lambda record: self.lines.append(record.getMessage())
        self.runner = SimpleNamespace(
            cfg=cfg, work_dir=folder, logger=logger, register_hook=self.hooks.append
        )
        for name in ('train', 'val', 'test'):
            setattr(self.runner, f'_{name}_dataloader', cfg.get(f'{name}_dataloader'))
            setattr(self.runner, f'_{name}_evaluator', cfg.get(f'{name}_evaluator'))
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            guard_data(self.runner, loaders)
        self.sets = {name: cfg[f'{name}_dataloader']['dataset'] for name in loaders}

    def load(self, *classes):
        """Load a checkpoint that was trained on ``classes``."""
        for hook in self.hooks:
            checkpoint = {'meta': {'dataset_meta': {'classes': classes}}}
            hook.after_load_checkpoint(self.runner, checkpoint)


# --- COCO files -----------------------------------------------------------------------------------


def coco_config(root, *, names=NAMES, in_file=NAMES, in_val=None, sides=(SIDE_PX,), **settings):
    """One box of every class in every image; category ids are not in the order of the classes."""
    loaders = {}
    for split, listed in (('train', in_file), ('val', in_val or in_file)):
        images, annotations = [], []
        for number, side in enumerate(sides, start=1):
            save_image(root / split / f'{number}.png', side=side)
            images.append(dict(id=number, file_name=f'{number}.png', width=side, height=side))
            for place, name in enumerate(in_file):
                box = [6 * place, 6 * place, 5, 5]
                x, y, w, h = box
                outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                annotations.append(dict(
                    id=len(annotations) + 1, image_id=number, bbox=box, area=w * h, iscrowd=0,
                    category_id=70 - 3 * in_file.index(name), segmentation=outline,
                ))  # fmt: skip
        categories = [dict(id=70 - 3 * in_file.index(name), name=name) for name in listed]
        path = root / f'{split}.json'
        path.write_text(json.dumps(
            dict(images=images, annotations=annotations, categories=categories)
        ))  # fmt: skip
        loaders[f'{split}_dataloader'] = loader(dict(
            type='CocoDataset', ann_file=str(path), data_prefix=dict(img=str(root / split)),
            metainfo=dict(classes=names), test_mode=split == 'val', serialize_data=False,
            **settings,
        ))  # fmt: skip
    metric = dict(type='CocoMetric', ann_file=str(root / 'val.json'), metric='bbox')
    return Config(dict(default_scope='mmdet', model={}, val_evaluator=metric, **loaders))


def test_categories_in_another_order_are_mapped_by_name(tmp_path):
    """In the file of the metric too: a perfect detector scores 1, not 0."""
    from mmdet.registry import METRICS

    cfg = coco_config(tmp_path, in_val=NAMES[::-1])
    guarded = Guarded(cfg, ['train', 'val'], tmp_path / 'work')
    labels = {
        name: [instance['bbox_label'] for instance in dataset.get_data_info(0)['instances']]
        for name, dataset in guarded.sets.items()
    }
    assert labels == {'train': [0, 1, 2, 3], 'val': [0, 1, 2, 3]}
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = guarded.sets['val'].metainfo
    info = guarded.sets['val'].get_data_info(0)
    # Trained on the first file: the label of a class is its place there.
    trained = guarded.sets['train'].get_data_info(0)['instances']
    perfect = dict(
        bboxes=torch.tensor([instance['bbox'] for instance in trained], dtype=torch.float32),
        labels=torch.tensor([instance['bbox_label'] for instance in trained]),
        scores=torch.ones(len(trained)),
    )
    sample = dict(img_id=info['img_id'], ori_shape=(SIDE_PX, SIDE_PX), pred_instances=perfect)
    metric.process({}, [sample])
    assert metric.evaluate(size=1)['coco/bbox_mAP'] == pytest.approx(1)
    assert any('order' in line for line in guarded.lines)


def test_report_reads_labels_by_name(tmp_path):
    cfg = coco_config(tmp_path, in_val=NAMES[::-1])
    info = guarded_dataset(cfg, 'val').get_data_info(0)
    assert [instance['bbox_label'] for instance in info['instances']] == [0, 1, 2, 3]
    with pytest.raises(DataError, match='bee'):
        guarded_dataset(cfg, 'val', trained_on=('bee', 'ape', 'cat', 'dog'))


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (('ape', 'bea', 'cat', 'dog'), "'bea'.*'bee'"),
        (('Ape', 'bee', 'cat', 'dog'), "'Ape'.*'ape'"),
        (('ape ', 'bee', 'cat', 'dog'), "'ape '.*'ape'"),
        (('ape', 'ape', 'cat', 'dog'), "'ape'"),
        (('ape', 'bee', 'cat', 'dog', 'elk'), "'elk'"),
        ('cat', 'cat'),
    ],
)
def test_class_that_the_file_lacks_is_refused(names, words, tmp_path):
    for policy in ('raise', 'skip'):
        cfg = coco_config(tmp_path, names=names)
        cfg.bad_data = policy
        with pytest.raises(DataError, match=words):
            Guarded(cfg, ['train'], tmp_path / 'work')


def test_config_whose_loaders_name_classes_in_two_orders(tmp_path):
    cfg = coco_config(tmp_path)
    cfg.val_dataloader.dataset.metainfo = dict(classes=NAMES[::-1])
    with pytest.raises(DataError, match='train'):
        Guarded(cfg, ['train', 'val'], tmp_path / 'work')


def test_checkpoint_that_names_its_classes_in_another_order(tmp_path):
    guarded = Guarded(coco_config(tmp_path), ['val'], tmp_path / 'work')
    guarded.load(*NAMES)
    guarded.load('other', 'words', 'for', 'them')
    with pytest.raises(DataError, match='checkpoint'):
        guarded.load('bee', 'ape', 'cat', 'dog')
    # To start a training from: its head is another one.
    Guarded(coco_config(tmp_path), ['train'], tmp_path / 'work').load('bee', 'ape', 'cat', 'dog')


def test_what_is_left_out_is_counted(tmp_path):
    cfg = coco_config(
        tmp_path, sides=(64, 64, *[30] * 8), filter_cfg=dict(min_size=32, filter_empty_gt=True)
    )
    guarded = Guarded(cfg, ['train', 'val'], tmp_path / 'work')
    assert len(guarded.sets['train']) == 2
    train, val = (line for line in guarded.lines if 'images' in line)
    assert train == 'train: 2 of 10 images, 8 instances, 4 classes; 8 left out: min_size 32'
    assert val == 'val: 10 images, 40 instances, 4 classes'
    content = json.loads((tmp_path / 'train.json').read_text())
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != 1]
    (tmp_path / 'train.json').write_text(json.dumps(content))
    cfg.train_dataloader.dataset = coco_config(tmp_path / 'x').train_dataloader.dataset
    cfg.train_dataloader.dataset.update(
        ann_file=str(tmp_path / 'train.json'), filter_cfg=dict(filter_empty_gt=True)
    )
    (line,) = Guarded(cfg, ['train'], tmp_path / 'work').lines
    assert line.endswith('; 1 left out: without instances')


def test_panoptic_categories_in_another_order_are_mapped_by_name(tmp_path):
    ids = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    ids[: SIDE_PX // 2, :, 0], ids[SIDE_PX // 2 :, :, 0] = 1, 2
    for folder in ('images', 'maps'):
        (tmp_path / folder).mkdir()
        Image.fromarray(ids).save(tmp_path / folder / '1.png')
    segments = [
        dict(id=number, category_id=5 * number, area=9, bbox=[0, 0, 3, 3], iscrowd=0)
        for number in (1, 2)
    ]
    path = tmp_path / 'panoptic.json'
    path.write_text(json.dumps(dict(
        images=[dict(id=1, file_name='1.png', width=SIDE_PX, height=SIDE_PX)],
        annotations=[dict(image_id=1, file_name='1.png', segments_info=segments)],
        categories=[dict(id=10, name='sky', isthing=0), dict(id=5, name='ape', isthing=1)],
    )))  # fmt: skip
    classes = dict(classes=('ape', 'sky'), thing_classes=('ape',), stuff_classes=('sky',))
    cfg = Config(dict(default_scope='mmdet', model={}, train_dataloader=loader(dict(
        type='CocoPanopticDataset', ann_file=str(path), metainfo=classes,
        data_prefix=dict(img=str(tmp_path / 'images'), seg=str(tmp_path / 'maps')),
    ))))  # fmt: skip
    dataset = Guarded(cfg, ['train'], tmp_path / 'work').sets['train']
    found = {
        segment['id']: segment['category'] for segment in dataset.get_data_info(0)['segments_info']
    }
    assert found == {1: 0, 2: 1}


# --- class folders --------------------------------------------------------------------------------


def folder_config(root, *, train=NAMES, val=NAMES, **metainfo):
    for split, names in (('train', train), ('val', val)):
        for name in names:
            save_image(root / split / name / 'image.png')
    loaders = {
        f'{split}_dataloader': loader(dict(
            type='CustomDataset', data_root=str(root), data_prefix=split,
            metainfo=metainfo or None, pipeline=[],
        ))
        for split in ('train', 'val')
    }  # fmt: skip
    return Config(dict(default_scope='mmpretrain', model=dict(head={}), **loaders))


def labels_by_folder(dataset):
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {info['img_path'].split('/')[-2]: info['gt_label'] for info in infos}


@pytest.mark.parametrize('loaders', [['train', 'val'], ['val']])
def test_class_folder_that_is_missing(loaders, tmp_path):
    """The training set says which number a folder has, also where only a test runs."""
    cfg = folder_config(tmp_path, val=('ape', 'cat', 'dog'))
    guarded = Guarded(cfg, loaders, tmp_path / 'work')
    assert labels_by_folder(guarded.sets['val']) == {'ape': 0, 'cat': 2, 'dog': 3}
    assert guarded.sets['val'].metainfo['classes'] == NAMES
    assert any('name' in line for line in guarded.lines)


def test_class_folder_that_is_missing_without_the_training_set(tmp_path):
    """Then the checkpoint says it."""
    cfg = folder_config(tmp_path, val=('ape', 'cat', 'dog'))
    cfg.train_dataloader = None
    guarded = Guarded(cfg, ['val'], tmp_path / 'work')
    with pytest.raises(DataError, match="'cat'"):
        guarded.load(*NAMES)


def test_class_folder_of_no_class(tmp_path):
    with pytest.raises(DataError, match=r"'bea'.*'bee'"):
        Guarded(folder_config(tmp_path, val=('ape', 'bea')), ['val'], tmp_path / 'work')
    cfg = folder_config(tmp_path / 'b', train=('ape', 'bea', 'cat', 'dog'), classes=NAMES)
    with pytest.raises(DataError, match=r"'bea'.*'bee'"):
        Guarded(cfg, ['train'], tmp_path / 'work')


def test_folders_named_by_numbers(tmp_path):
    """As text, 10 comes after 1."""
    numbers = tuple(map(str, range(11)))
    cfg = folder_config(tmp_path, train=numbers, val=numbers, classes=numbers)
    for dataset in Guarded(cfg, ['train', 'val'], tmp_path / 'work').sets.values():
        assert labels_by_folder(dataset) == {name: int(name) for name in numbers}


def test_codes_are_numbered_as_the_library_does(tmp_path):
    codes = ('n01', 'n02', 'n03', 'n04')
    cfg = folder_config(tmp_path, train=codes, val=codes, classes=NAMES)
    guarded = Guarded(cfg, ['train', 'val'], tmp_path / 'work')
    assert labels_by_folder(guarded.sets['val']) == {code: i for i, code in enumerate(codes)}
    cfg = folder_config(tmp_path / 'b', train=codes[:3], val=codes, classes=NAMES)
    with pytest.raises(DataError, match='3 folders, 4 classes'):
        Guarded(cfg, ['train'], tmp_path / 'work')


# --- label maps -----------------------------------------------------------------------------------


@pytest.mark.parametrize('background', [0, 255])
def test_foreground_of_255_is_named(background, tmp_path):
    """As drawing programs save a mask; 255 is ignored, so the class is never learnt."""
    pixels = np.full((SIDE_PX, SIDE_PX), background, np.uint8)
    pixels[: SIDE_PX // 4] = 255
    (tmp_path / 'maps').mkdir()
    for number in (1, 2):
        save_image(tmp_path / 'images' / f'{number}.jpg')
        Image.fromarray(pixels).save(tmp_path / 'maps' / f'{number}.png')
    cfg = Config(dict(
        default_scope='mmseg', model={}, train_dataloader=loader(dict(
            type='BaseSegDataset', data_root=str(tmp_path), metainfo=dict(
                classes=('wall', 'window'), palette=[[0, 0, 0], [1, 1, 1]]
            ), data_prefix=dict(img_path='images', seg_map_path='maps'),
        )),
    ))  # fmt: skip
    found = survey(cfg, config='the config', progress=False)
    (finding,) = (f for f in found.findings if f.kind == 'class-never-seen')
    assert 'window' in str(finding.examples[-1]) and '255' in str(finding.examples[-1])
    if background == 255:
        with pytest.raises(DataError, match='255'):
            Guarded(cfg, ['train'], tmp_path / 'work')
    else:
        lines = Guarded(cfg, ['train'], tmp_path / 'work').lines
        assert any('window' in line and '255' in line and '25.0%' in line for line in lines)


def test_two_classes_of_one_name():
    """As ImageNet has two cranes: their places are no contradiction."""
    check_places(('crane', 'bee', 'crane'), ('crane', 'bee', 'crane'), loader='val', whose='model')
    with pytest.raises(DataError, match='bee'):
        check_places(('crane', 'bee', 'crane'), ('bee', 'crane', 'crane'), loader='val', whose='x')
