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
from swinv2_mm.errors import DataError, UserError

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
    with DefaultScope.overwrite_default_scope('mmdet'):
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


def test_two_files_with_a_metric_each(tmp_path):
    """The second lists its categories in another order: a perfect detector scores 1 on both."""
    from mmengine.registry import EVALUATOR

    cfg = coco_config(tmp_path / 'a')
    other = coco_config(tmp_path / 'b', in_val=NAMES[::-1])
    parts = [part.val_dataloader.dataset for part in (cfg, other)]
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    cfg.val_evaluator = dict(
        type='MultiDatasetsEvaluator', dataset_prefixes=['a', 'b'],
        metrics=[part.val_evaluator for part in (cfg, other)],
    )  # fmt: skip
    dataset = Guarded(cfg, ['val'], tmp_path / 'work').sets['val']
    with DefaultScope.overwrite_default_scope('mmdet'):
        evaluator = EVALUATOR.build(cfg.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    for info in (dataset.get_data_info(index) for index in range(2)):
        boxes = [instance['bbox'] for instance in info['instances']]
        perfect = dict(
            bboxes=torch.tensor(boxes, dtype=torch.float32), labels=torch.arange(len(NAMES)),
            scores=torch.ones(len(NAMES)),
        )  # fmt: skip
        sample = dict(img_id=info['img_id'], ori_shape=(SIDE_PX,) * 2, pred_instances=perfect)
        evaluator.process([sample], {})
    scores = evaluator.evaluate(2)
    assert scores['a/coco/bbox_mAP'] == scores['b/coco/bbox_mAP'] == pytest.approx(1)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[parts[0]] * 3)
    with pytest.raises(UserError, match='2 metrics for 3 data sets'):
        Guarded(cfg, ['val'], tmp_path / 'work')


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


@pytest.mark.parametrize('category_id', ['70', 70.0, 67])
def test_class_whose_category_has_no_id_of_its_own(category_id, tmp_path):
    path = tmp_path / 'train.json'
    cfg = coco_config(tmp_path)
    content = json.loads(path.read_text())
    content['categories'].append(content['categories'].pop(0) | {'id': category_id})
    path.write_text(json.dumps(content))
    for policy in ('raise', 'skip'):
        cfg.bad_data = policy
        with pytest.raises(DataError, match=f"'ape' has the id {category_id!r}"):
            Guarded(cfg, ['train'], tmp_path / 'work')


@pytest.mark.parametrize('metainfo', [dict(CLASSES=NAMES), dict(class_names=NAMES), 'names.txt'])
def test_metainfo_that_names_no_classes(metainfo, tmp_path):
    for cfg in (coco_config(tmp_path), folder_config(tmp_path)):
        cfg.train_dataloader.dataset['metainfo'] = metainfo
        with pytest.raises(DataError, match='classes'):
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
    with pytest.raises(DataError, match="'ape', which is class 1"):
        guarded.load('Bee', 'APE', 'cat', 'dog')
    guarded.lines.clear()
    guarded.load('ape', 'bee', 'cat', 'elk')
    (line,) = guarded.lines
    assert "'dog'" in line and "'elk'" in line
    # To start a training from: its head is another one.
    start = Guarded(coco_config(tmp_path), ['train'], tmp_path / 'work')
    start.load('bee', 'ape', 'cat', 'dog')
    assert "'ape', which is class 1 of the checkpoint" in start.lines[-1]


@pytest.mark.parametrize('place', [0, 3])
def test_file_of_a_metric_that_lacks_a_class(place, tmp_path):
    """Its category ids are looked up by name: the label after a missing one is another class."""
    cfg = coco_config(tmp_path)
    content = json.loads((tmp_path / 'val.json').read_text())
    content['categories'][place]['name'] += 's'
    (tmp_path / 'metric.json').write_text(json.dumps(content))
    cfg.val_evaluator.ann_file = str(tmp_path / 'metric.json')
    with pytest.raises(DataError, match=f"'{NAMES[place]}'.*'{NAMES[place]}s'"):
        Guarded(cfg, ['val'], tmp_path / 'work')


@pytest.mark.parametrize('form', ['corners', 'fractions'])
def test_boxes_in_another_form(form, tmp_path):
    """x1, y1, x2, y2 would be learnt as width and height; fractions would all be left out."""
    cfg = coco_config(tmp_path, sides=(SIDE_PX,) * 4)
    path = tmp_path / 'train.json'
    content = json.loads(path.read_text())
    for number, annotation in enumerate(content['annotations']):
        x, y = 2 + 3 * number, 2 + 2 * number
        corners = [x, y, x + 8, y + 8]
        annotation['bbox'] = corners if form == 'corners' else [v / SIDE_PX for v in corners]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=form):
        Guarded(cfg, ['train'], tmp_path / 'work')


def test_what_is_passed_over_of_a_file_is_counted(tmp_path):
    cfg = coco_config(tmp_path, names=NAMES[:3], sides=(SIDE_PX,) * 2)
    path = tmp_path / 'train.json'
    content = json.loads(path.read_text())
    for annotation in content['annotations']:
        if annotation['category_id'] == 70 - 3 * 1:
            annotation['iscrowd'] = 1
            annotation['segmentation'] = {'size': [SIDE_PX] * 2, 'counts': [0, SIDE_PX**2]}
    path.write_text(json.dumps(content))
    line = Guarded(cfg, ['train'], tmp_path / 'work').lines[-1]
    assert line == (
        'train: 2 images, 4 instances, 3 classes; 2 instances left out: crowds, or smaller than a '
        "pixel; 1 categories of the file left out: 'dog'; 1 without labels: 'bee'"
    )


def test_images_that_are_trained_on_and_tested(tmp_path):
    cfg = coco_config(tmp_path, sides=(SIDE_PX,) * 3)
    cfg.val_dataloader.dataset.data_prefix.img = str(tmp_path / 'train')
    lines = Guarded(cfg, ['train', 'val'], tmp_path / 'work').lines
    assert any('3 of its 3 images are trained on' in line for line in lines)


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


def panoptic_config(tmp_path, *, name='1.png', num_things=1):
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
        annotations=[dict(image_id=1, file_name=name, segments_info=segments)],
        categories=[dict(id=10, name='sky', isthing=0), dict(id=5, name='ape', isthing=1)],
    )))  # fmt: skip
    classes = dict(classes=('ape', 'sky'), thing_classes=('ape',), stuff_classes=('sky',))
    model = dict(panoptic_head=dict(num_things_classes=num_things, num_stuff_classes=1))
    return Config(dict(default_scope='mmdet', model=model, train_dataloader=loader(dict(
        type='CocoPanopticDataset', ann_file=str(path), metainfo=classes,
        data_prefix=dict(img=str(tmp_path / 'images'), seg=str(tmp_path / 'maps')),
    ))))  # fmt: skip


def test_panoptic_categories_in_another_order_are_mapped_by_name(tmp_path):
    cfg = panoptic_config(tmp_path)
    dataset = Guarded(cfg, ['train'], tmp_path / 'work').sets['train']
    found = {
        segment['id']: segment['category'] for segment in dataset.get_data_info(0)['segments_info']
    }
    assert found == {1: 0, 2: 1}


def test_panoptic_head_of_another_number_of_things(tmp_path):
    with pytest.raises(DataError, match='num_things_classes is 2, should be 1'):
        Guarded(panoptic_config(tmp_path, num_things=2), ['train'], tmp_path / 'work')


@pytest.mark.parametrize('is_thing', [None, 0])
def test_panoptic_thing_that_the_file_calls_stuff(is_thing, tmp_path):
    """Its label is that of a thing in the config, and its mask would be learnt as stuff."""
    cfg = panoptic_config(tmp_path)
    path = tmp_path / 'panoptic.json'
    content = json.loads(path.read_text())
    content['categories'][1]['isthing'] = is_thing
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"isthing.*'ape'"):
        Guarded(cfg, ['train'], tmp_path / 'work')


def test_classifier_without_labels(tmp_path):
    cfg = folder_config(tmp_path)
    cfg.model.type, cfg.train_dataloader.dataset.with_label = 'ImageClassifier', False
    with pytest.raises(DataError, match='with_label'):
        Guarded(cfg, ['train'], tmp_path / 'work')


def test_panoptic_file_name_with_back_slashes(tmp_path):
    cfg = panoptic_config(tmp_path, name='.\\1.png')
    Guarded(cfg, ['train'], tmp_path / 'work')
    (usable,) = tmp_path.glob('work/usable_annotations/*.json')
    assert json.loads(usable.read_text())['annotations'][0]['file_name'] == './1.png'


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
    cfg.train_dataloader.dataset.metainfo.classes = ('ape', 'ape', 'bea', 'cat', 'dog')
    with pytest.raises(DataError, match=r"twice.*'ape'"):
        Guarded(cfg, ['train'], tmp_path / 'work')


def test_folders_named_by_numbers(tmp_path):
    """As text, 10 comes after 1."""
    numbers = tuple(map(str, range(11)))
    cfg = folder_config(tmp_path, train=numbers, val=numbers, classes=numbers)
    for dataset in Guarded(cfg, ['train', 'val'], tmp_path / 'work').sets.values():
        assert labels_by_folder(dataset) == {name: int(name) for name in numbers}


@pytest.mark.parametrize('loaders', [['train', 'val'], ['val']])
def test_numbered_folders_of_named_classes(loaders, tmp_path):
    """The names do not say which folder is theirs; as text, 10 would be the second class."""
    numbers = tuple(map(str, range(1, 11)))
    words = ('kiwi', 'pear', 'fig', 'lime', 'plum', 'nut', 'date', 'leek', 'corn', 'okra')
    cfg = folder_config(tmp_path, train=numbers, val=numbers, classes=words)
    guarded = Guarded(cfg, loaders, tmp_path / 'work')
    for dataset in guarded.sets.values():
        assert labels_by_folder(dataset) == {name: int(name) - 1 for name in numbers}
    is_told = any("folder '10' is class 'okra'" in line for line in guarded.lines)
    assert is_told == ('train' in loaders)


def test_names_in_another_case_than_their_folders(tmp_path):
    cfg = folder_config(tmp_path, classes=('Dog', 'Cat', 'Bee', 'Ape'))
    with pytest.raises(DataError, match=r"'ape'.*'Ape'"):
        Guarded(cfg, ['train'], tmp_path / 'work')


def test_what_is_passed_over_beside_class_folders_is_counted(tmp_path):
    cfg = folder_config(tmp_path)
    save_image(tmp_path / 'train' / 'ape' / 'other.webp')
    save_image(tmp_path / 'train' / 'lost.png')
    (tmp_path / 'train' / 'bee' / 'image.png').unlink()
    line = Guarded(cfg, ['train'], tmp_path / 'work').lines[-1]
    assert line == (
        'train: 3 of 5 images, 4 classes; 1 left out: beside the class folders; 1 left out: '
        "suffix '.webp'; 1 without labels: 'bee'"
    )


def test_second_set_of_class_folders_lacks_one(tmp_path):
    cfg = folder_config(tmp_path / 'a')
    other = folder_config(tmp_path / 'b', train=('ape', 'cat', 'dog')).train_dataloader.dataset
    both = [cfg.train_dataloader.dataset, other]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    dataset = Guarded(cfg, ['train'], tmp_path / 'work').sets['train']
    assert [dataset.get_data_info(i)['gt_label'] for i in range(7)] == [0, 1, 2, 3, 0, 2, 3]


def test_list_that_contradicts_its_folders(tmp_path):
    cfg = folder_config(tmp_path, classes=NAMES)
    path = tmp_path / 'list.txt'
    path.write_text('\n'.join(f'{name}\\image.png {n}' for n, name in enumerate(NAMES[::-1])))
    cfg.train_dataloader.dataset.ann_file = str(path)
    guarded = Guarded(cfg, ['train'], tmp_path / 'work')
    assert any('4 of 4 lines' in line for line in guarded.lines)
    assert labels_by_folder(guarded.sets['train']) == {'dog': 0, 'cat': 1, 'bee': 2, 'ape': 3}


def test_codes_are_numbered_as_the_library_does(tmp_path):
    codes = ('n01', 'n02', 'n03', 'n04')
    cfg = folder_config(tmp_path, train=codes, val=codes, classes=NAMES)
    guarded = Guarded(cfg, ['train', 'val'], tmp_path / 'work')
    assert labels_by_folder(guarded.sets['val']) == {code: i for i, code in enumerate(codes)}
    cfg = folder_config(tmp_path / 'b', train=codes[:3], val=codes, classes=NAMES)
    with pytest.raises(DataError, match='3 folders, 4 classes'):
        Guarded(cfg, ['train'], tmp_path / 'work')


# --- label maps -----------------------------------------------------------------------------------


def map_config(root, pixels, *, pipeline=(), **settings):
    (root / 'maps').mkdir(parents=True)
    for number in (1, 2):
        save_image(root / 'images' / f'{number}.jpg')
        Image.fromarray(pixels).save(root / 'maps' / f'{number}.png')
    dataset = dict(
        type='BaseSegDataset', data_root=str(root), pipeline=list(pipeline),
        metainfo=dict(classes=('wall', 'window'), palette=[[0, 0, 0], [1, 1, 1]]),
        data_prefix=dict(img_path='images', seg_map_path='maps'), **settings,
    )  # fmt: skip
    cfg = dict(default_scope='mmseg', model={}, train_dataloader=loader(dataset))
    return Config({**cfg, 'val_dataloader': loader({**dataset, 'test_mode': True})})


@pytest.mark.parametrize('where', ['data set', 'pipeline'])
def test_maps_whose_labels_are_counted_from_another_value(where, tmp_path):
    """Trained from 1 and tested from 0, every pixel would have another class."""
    pixels = np.ones((SIDE_PX, SIDE_PX), np.uint8)
    pixels[:9] = 2
    cfg = map_config(tmp_path, pixels)
    dataset = cfg.train_dataloader.dataset
    if where == 'data set':
        dataset.reduce_zero_label = True
    else:
        dataset.pipeline = [dict(type='LoadAnnotations', reduce_zero_label=True)]
    with pytest.raises(DataError, match='val data set: reduce_zero_label is False'):
        Guarded(cfg, ['train', 'val'], tmp_path / 'work')
    cfg.val_dataloader.dataset = {**cfg.val_dataloader.dataset, 'reduce_zero_label': True}
    guarded = Guarded(cfg, ['val'], tmp_path / 'work')
    meta = {'classes': ('wall', 'window'), 'reduce_zero_label': False}
    with pytest.raises(DataError, match='checkpoint False'):
        guarded.hooks[-1].after_load_checkpoint(guarded.runner, {'meta': {'dataset_meta': meta}})


@pytest.mark.parametrize('largest', [0, 1, 2])
def test_maps_that_mmseg_loads_itself(largest, tmp_path):
    pixels = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    pixels[:9] = largest
    cfg = map_config(tmp_path, pixels, pipeline=[dict(type='LoadAnnotations')])
    if largest == 2:
        with pytest.raises(DataError, match='no class number'):
            Guarded(cfg, ['train'], tmp_path / 'work')
    else:
        lines = Guarded(cfg, ['train'], tmp_path / 'work').lines
        assert any('window' in line for line in lines) == (largest == 0)


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
        cfg.val_dataloader = cfg.train_dataloader
        lines = Guarded(cfg, ['train', 'val'], tmp_path / 'work').lines
        told = [line for line in lines if 'window' in line and '255' in line and '25.0%' in line]
        assert [line.partition(' ')[0] for line in told] == ['train', 'val']


def test_two_classes_of_one_name():
    """As ImageNet has two cranes: their places are no contradiction."""
    check_places(('crane', 'bee', 'crane'), ('crane', 'bee', 'crane'), loader='val', whose='model')
    with pytest.raises(DataError, match='bee'):
        check_places(('crane', 'bee', 'crane'), ('bee', 'crane', 'crane'), loader='val', whose='x')
