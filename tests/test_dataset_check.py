"""tools/dataset.py check: planted faults are found by kind, place and count; clean data passes."""

import json
import math
import os
import random
import shutil
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
from broken_data import plant
from conftest import ROOT, SHARED_DATA
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask

import swinv2_mm.models  # noqa: F401  the stand-in for mmcv's compiled ops
from swinv2_mm.data_check.catalogue import CATALOGUE
from swinv2_mm.data_check.masks import MaskFault, run_lengths
from swinv2_mm.data_check.opening import NUM_AHEAD
from swinv2_mm.data_check.survey import survey
from swinv2_mm.data_check.survey_output import as_text
from swinv2_mm.ordered_map import map_in_threads

CONFIGS = ROOT / 'configs'
LEAVES = {
    'instances': CONFIGS / 'detection' / 'cascade-mask-rcnn_swinv2-nano-w8_digits.py',
    'label maps': CONFIGS / 'segmentation' / 'upernet_swinv2-nano-w8_digits.py',
    'folders': CONFIGS / 'classification' / 'swinv2-nano-w8_digits.py',
}
TRAIN = 'train_dataloader.dataset'


@cache
def load(leaf, data_root):
    """Read a config once for each value that SWINV2_DATA has."""
    assert os.environ['SWINV2_DATA'] == data_root
    return Config.fromfile(leaf)


def look(config, **options):
    """Counts and examples of what is found, by kind."""
    cfg = config if isinstance(config, Config) else load(config, os.environ['SWINV2_DATA'])
    result = survey(cfg, config='the config', progress=False, **options)
    found = {}
    for finding in result.findings:
        count, examples = found.get(finding.kind, (0, []))
        found[finding.kind] = (count + finding.count, examples + list(map(str, finding.examples)))
    return found


@pytest.fixture(scope='module')
def folder_of_copies(tmp_path_factory):
    return tmp_path_factory.mktemp('copies')


@pytest.fixture
def copy(digits_root, folder_of_copies, monkeypatch):
    """A copy of the digits that a test may break, found through SWINV2_DATA."""
    copied = folder_of_copies / 'digits'
    shutil.copytree(digits_root / 'digits', copied)
    monkeypatch.setenv('SWINV2_DATA', str(folder_of_copies))
    yield copied
    shutil.rmtree(copied)


@pytest.fixture(scope='module')
def clean(digits_root):
    """What is found in the digits as they are made: notes and warnings on rare classes, if any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWINV2_DATA', str(digits_root))
        return {task: look(leaf) for task, leaf in LEAVES.items()}


@pytest.mark.parametrize('task', LEAVES)
def test_clean_data_passes(task, clean):
    # Sixteen pictures need not show every digit.
    assert set(clean[task]) <= {'class-never-seen', 'class-not-tested'}


def test_tool_writes_what_it_finds(copy, tool, tmp_path):
    planted = {
        'COCO file: box of text': 'box-malformed',
        'COCO file: image id twice': 'image-id-repeated',
        'COCO file: image twice': 'image-listed-twice',
    }
    for name in planted:
        plant(name, copy)
    out, sheet = tmp_path / 'report.json', tmp_path / 'sheet.png'
    options = ['--out', out, '--contact-sheet', sheet]
    status, errors = tool('dataset', 'check', LEAVES['instances'], *options)
    assert status == 1 and 'Traceback' not in errors
    report = json.loads(out.read_text())
    found = {(f['kind'], f['data_set'].partition(',')[0]): f for f in report['findings']}
    assert {(kind, split) for kind in planted.values() for split in ('train', 'val')} <= set(found)
    errors = [f['count'] for f in report['findings'] if f['severity'] == 'error']
    assert report['num_errors'] == sum(errors)
    assert all(len(f['examples']) <= 5 for f in report['findings'])
    (example,) = found['box-malformed', 'val']['examples']
    first = json.loads((copy / 'annotations' / 'val.json').read_text())['annotations'][0]
    assert example['file'] == str(copy / 'annotations' / 'val.json')
    assert example['id'] == f'annotation {first["id"]} of image {first["image_id"]}'
    with Image.open(sheet) as page:
        assert page.width > 1000


@pytest.mark.parametrize(
    ('task', 'option', 'kind', 'words'),
    [
        ('instances', 'model.roi_head.mask_head.num_classes=9', 'num-classes', 'should be 10'),
        ('instances', f'{TRAIN}.metainfo.classes=zero', 'classes-not-a-list', 'zero'),
        ('instances', 'val_evaluator.ann_file=other.json', 'evaluator-file', 'other.json'),
        ('label maps', 'model.decode_head.num_classes=10', 'num-classes', 'decode_head'),
        ('label maps', f'{TRAIN}.metainfo.palette=[[0,0,0]]', 'palette-length', '1 colours'),
        ('label maps', f'{TRAIN}.type=ADE20KDataset', 'class-not-of-type', 'photograph'),
        ('folders', 'model.head.num_classes=1000', 'num-classes', 'model.head.num_classes'),
    ],
)  # fmt: skip
def test_config_that_does_not_fit(task, option, kind, words, tool, use_data, tmp_path):
    out = tmp_path / 'report.json'
    status, _ = tool(
        'dataset', 'check', LEAVES[task], '--out', out, '--num-images', 0, '--cfg-options', option
    )
    assert status == 1
    findings = [f for f in json.loads(out.read_text())['findings'] if f['kind'] == kind]
    assert findings and any(words in str(e) for f in findings for e in f['examples'])


def test_classes_of_the_config_in_another_order_than_the_folders(use_data):
    cfg = Config.fromfile(LEAVES['folders'])
    names = sorted(p.name for p in (use_data / 'digits' / 'folders' / 'train').iterdir())
    cfg.train_dataloader.dataset.metainfo = dict(classes=[*names[1:], names[0]])
    assert look(cfg, num_images=0, loaders=['train'])['class-order'][0] == 10
    cfg.train_dataloader.dataset.metainfo = dict(classes=names)
    assert 'class-order' not in look(cfg, num_images=0)


def test_wrappers_are_looked_through(copy):
    cfg = Config.fromfile(LEAVES['instances'])
    plant('image: zero bytes', copy)
    inner = cfg.train_dataloader.dataset
    repeated = dict(type='RepeatDataset', times=2, dataset=inner)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[repeated, repeated])
    count, examples = look(cfg, loaders=['train'])['image-zero-bytes']
    # The same files twice in one loader are one data set.
    assert count == 1 and '00001.jpg' in examples[0]


def test_ignored_and_reduced_labels(copy):
    """255 is no fault; with reduce_zero_label, 0 is ignored and labels start at 1."""
    path = copy / 'label_maps/train/00001.png'
    pixels = np.array(Image.open(path))
    pixels[:2, :2] = 255
    Image.fromarray(pixels).save(path)
    assert 'label-out-of-range' not in look(LEAVES['label maps'])
    cfg = Config.fromfile(LEAVES['label maps'])
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.reduce_zero_label = True
        cfg[loader].dataset.metainfo = dict(classes=cfg[loader].dataset.metainfo.classes[1:])
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.num_classes = 10
    assert not any(CATALOGUE[kind].severity == 'error' for kind in look(cfg))
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        del cfg[loader].dataset['reduce_zero_label']
    assert 'label-out-of-range' in look(cfg)


def test_list_of_images_with_numbers(copy):
    lines = ['one/one_00001.jpg 1', 'one/one_00001.jpg 1', 'two/two_00001.jpg 10', 'two', 'x.jpg 0']
    (copy / 'folders' / 'list.txt').write_text('\n'.join(lines))
    cfg = Config.fromfile(LEAVES['folders'])
    cfg.train_dataloader.dataset.ann_file = 'list.txt'
    cfg.train_dataloader.dataset.data_prefix = 'train'
    cfg.train_dataloader.dataset.metainfo = dict(classes=list('abcdefghij'))
    found = look(cfg, loaders=['train'])
    for kind, place in (
        ('image-listed-twice', 'line 2'),
        ('label-out-of-range', 'line 3: 10, 10 classes'),
        ('line-malformed', 'line 4'),
        ('image-missing', 'x.jpg, line 5'),
    ):
        count, examples = found[kind]
        assert count == 1 and place in examples[0]


def test_panoptic_segments(tmp_path):
    ids = np.zeros((8, 8), np.uint8)
    ids[:4], ids[4:6] = 1, 2
    map_of_ids = np.stack([ids, ids * 0, ids * 0], -1)
    for folder, pixels in (('img', map_of_ids * 50), ('map', map_of_ids)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / 'a.png')
    segment = dict(category_id=1, area=32, bbox=[0, 0, 8, 4], iscrowd=0)
    content = dict(
        images=[dict(id=1, file_name='a.png', width=8, height=8)],
        annotations=[dict(image_id=1, file_name='a.png', segments_info=[dict(segment, id=1)])],
        categories=[dict(id=1, name='cat', isthing=1), dict(id=2, name='sky', isthing=0)],
    )
    path = tmp_path / 'panoptic.json'
    path.write_text(json.dumps(content))
    classes = dict(classes=('cat', 'sky'), thing_classes=('cat',), stuff_classes=('sky',))
    data_set = dict(
        type='CocoPanopticDataset', ann_file=str(path), metainfo=classes,
        data_prefix=dict(img=str(tmp_path / 'img'), seg=str(tmp_path / 'map')),
    )  # fmt: skip
    head = dict(num_things_classes=1, num_stuff_classes=1)
    cfg = Config(dict(
        default_scope='mmdet', train_dataloader=dict(dataset=data_set),
        model=dict(panoptic_head=head),
    ))  # fmt: skip
    found = look(cfg)
    assert set(found) == {'segment-unlisted', 'class-never-seen'}
    assert 'segments 2' in found['segment-unlisted'][1][0]
    content['annotations'][0]['segments_info'] += [dict(segment, id=2), dict(segment, id=3)]
    path.write_text(json.dumps(content))
    cfg.model.panoptic_head.num_things_classes = 2
    found = look(cfg)
    assert set(found) == {'segment-missing', 'class-never-seen', 'num-classes'}
    assert 'segments 3' in found['segment-missing'][1][0]


def test_run_lengths_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (300, 200)):
        mask = np.asfortranarray(rng.random(size) < 0.3, dtype=np.uint8)
        rle = coco_mask.encode(mask)
        flat = mask.ravel(order='F')
        bounds = np.flatnonzero(np.diff(np.r_[0, flat])) if flat.any() else []
        expected = np.diff(np.r_[0, bounds, flat.size])
        assert run_lengths(rle['counts']).tolist() == expected.tolist()
    for broken in ('', '0P', '\u00e9', 'PPPPPPPPPPPP0'):
        with pytest.raises(MaskFault):
            run_lengths(broken)


def test_text_report_is_short_and_says_how_to_fix(copy):
    plant('COCO file: box outside of the image', copy)
    for path in (copy / 'images/train').iterdir():
        path.write_bytes(b'')
    result = survey(
        Config.fromfile(LEAVES['instances']), config='the config', progress=False, workers=2
    )
    lines = as_text(result).splitlines()
    assert '    ... and 11 more' in lines
    assert any(line.startswith('    fix: boxes are ') for line in lines)
    assert lines[-1].startswith('18 errors, ')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['nowhere.py'], 'nowhere.py does not exist'),
        ([LEAVES['folders'], '--num-images', '-1'], '--num-images must not be negative'),
        ([LEAVES['folders'], '--contact-sheet', 'sheet.txt'], 'should end in .png'),
        ([LEAVES['folders'], '--cfg-options', 'train_dataloader.dataset.type=CIFAR10'], 'CIFAR10'),
    ],
)
def test_bad_input_gives_one_line(arguments, words, refused, use_data):
    assert words in refused('dataset', 'check', *arguments, '--loader', 'train')


def test_annotation_file_that_is_not_json(copy):
    path = copy / 'annotations' / 'train.json'
    path.write_text('{"images": [')
    assert 'train.json' in look(LEAVES['instances'])['annotation-file-broken'][1][0]
    path.write_text('{"images": [], "annotations": []}')
    assert "'categories'" in look(LEAVES['instances'])['annotation-file-broken'][1][0]


def test_class_with_few_labels_is_noted(copy):
    for number in range(800):
        crop = Image.new('RGB', (8, 8), (number % 256, number // 256, 0))
        crop.save(copy / 'folders/train/one' / f'plain_{number}.png')
    count, examples = look(LEAVES['folders'], loaders=['train'])['class-rare']
    assert count == 9 and any('eight: 8 images' in example for example in examples)


ODD_VALUES = [
    None, [], {}, '', 'x', 0, -1, 1e300, math.nan, math.inf, True, [1], [[1, 2]], [None], {'a': 1},
    10**30, [[[1]]], [math.nan] * 8, {'size': [1, 1], 'counts': [1]}, {'size': 5, 'counts': 'x'},
]  # fmt: skip


def test_no_annotation_file_makes_it_crash(copy):
    path = copy / 'annotations' / 'train.json'
    text = path.read_text()
    rng = random.Random(0)
    for _ in range(150):
        content = json.loads(text)
        for _ in range(rng.choice([1, 3])):
            owner = content
            while True:
                keys = list(owner) if isinstance(owner, dict) else range(len(owner))
                key = rng.choice(list(keys))
                deeper = isinstance(owner[key], (dict, list)) and owner[key]
                if not deeper or rng.random() < 0.2:
                    break
                owner = owner[key]
            owner[key] = deepcopy(rng.choice(ODD_VALUES))
        path.write_text(json.dumps(content))
        look(LEAVES['instances'], loaders=['train'], num_images=0)


def test_few_images_are_in_memory_at_a_time():
    taken = 0

    def items():
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield taken

    done = map_in_threads(str, items(), num_threads=2, num_ahead=NUM_AHEAD)
    ahead = [taken - number for number, _ in enumerate(done)]
    assert len(ahead) == 1000 and max(ahead) == NUM_AHEAD + 1


needs_shared = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason='../shared/data is not here')


@pytest.fixture
def shared(monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(SHARED_DATA))
    return SHARED_DATA


@needs_shared
@pytest.mark.parametrize(
    ('leaf', 'oddities'),
    [
        # One window at the edge is 0.94 px wide; 7 shops against 1310 windows in val.
        (
            'detection/cascade-mask-rcnn_swinv2-nano-w12_facade.py',
            {'box-tiny': 'annotation 1632 of image 40', 'class-rare': 'shop: 7'},
        ),
        (
            'segmentation/upernet_swinv2-nano-w8_facade.py',
            {'class-rare': 'traffic-infrastructure: 48388 pixels'},
        ),
        ('detection/cascade-mask-rcnn_swinv2-nano-w12_balloon.py', {}),
        ('classification/swinv2-nano-w8_flowers.py', {}),
    ],
)
def test_photographs_pass_but_for_true_oddities(leaf, oddities, shared):
    found = look(CONFIGS / leaf)
    assert set(found) == set(oddities)
    for kind, place in oddities.items():
        count, examples = found[kind]
        assert count == 1 and place in examples[0]


@needs_shared
def test_real_coco_annotations_pass(shared):
    """Crowds as RLE, category ids with gaps, a grey image: none of that is a fault."""
    pipeline = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(
                type='CocoDataset',
                data_root=str(shared / 'coco_mini'),
                ann_file=f'annotations/{split}.json',
                data_prefix=dict(img=f'{split}/'),
                pipeline=pipeline,
            )
        )
        for split in ('train', 'val')
    }
    found = look(Config(dict(default_scope='mmdet', **loaders)))
    # 67 and 62 of the 80 classes occur; 1 and 2 images are not labelled (README of the data).
    counts = {kind: count for kind, (count, _) in found.items()}
    assert counts.pop('class-rare') > 0
    assert counts == {'class-never-seen': 13, 'class-not-tested': 18, 'image-without-labels': 3}
