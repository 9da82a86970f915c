"""Metrics that would score other images than those predicted, or another number of classes."""

import json

import pytest
from test_names_and_scores import DETECTOR_OPTIONS
from test_tools import CLASSIFIER, DETECTOR, SHORT, TINY

import swinv2_mm.cli
from swinv2_mm.config.file import load_config
from swinv2_mm.data_check.scoring import check_scoring
from swinv2_mm.engine.metric_names import EmptyDetectionHook
from swinv2_mm.errors import DataError, UserError

COMMON = [*SHORT, 'train_dataloader.persistent_workers=False', 'train_dataloader.batch_size=2']
COMMON += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
COMMON += ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
COMMON += ['default_hooks.checkpoint.interval=1']


@pytest.fixture
def detector(use_data, tmp_path):
    """Config of a detector, and its validation annotations cut into two files."""
    cfg = load_config(str(DETECTOR), [*COMMON, *DETECTOR_OPTIONS])
    file = use_data / 'digits' / cfg.val_dataloader.dataset.ann_file
    content, halves = json.loads(file.read_text()), []
    for number in range(2):
        images = content['images'][number::2]
        ids = {image['id'] for image in images}
        marks = [mark for mark in content['annotations'] if mark['image_id'] in ids]
        path = tmp_path / f'half-{number}.json'
        path.write_text(json.dumps({**content, 'images': images, 'annotations': marks}))
        halves.append(path)
    return cfg, halves, file


def concatenated(dataset, files):
    parts = [{**dataset, 'ann_file': str(file)} for file in files]
    return dict(type='ConcatDataset', datasets=parts)


@pytest.mark.parametrize('command', ['train', 'test'])
def test_two_files_against_one(command, detector, tmp_path):
    cfg, halves, _ = detector
    loader, evaluator = (cfg.val_dataloader, cfg.val_evaluator)
    if command == 'test':
        swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'run')
        loader, evaluator = cfg.test_dataloader, cfg.test_evaluator
    loader.dataset = concatenated(loader.dataset, halves)
    evaluator.ann_file = str(halves[0])
    with pytest.raises(DataError, match='half-0'):
        if command == 'train':
            swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'two')
        else:
            weights = tmp_path / 'run' / 'iter_1.pth'
            swinv2_mm.cli.test(cfg, weights, work_dir=tmp_path / 'two')
    assert not list(tmp_path.glob('two/*.pth'))


def test_two_files_against_both(detector, tmp_path):
    """Joined, they give the score of the whole file; the same file twice gives none."""
    cfg, halves, file = detector
    single = swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'whole')
    expected = single.val_loop.run()
    dataset = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = concatenated(dataset, halves)
    cfg.val_evaluator.ann_file = str(file)
    runner = swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'both')
    assert runner.val_loop.run() == pytest.approx(expected)
    for wrong in (
        concatenated(dataset, [file, file]),
        dict(type='RepeatDataset', dataset=dataset, times=2),
    ):
        cfg.val_dataloader.dataset = wrong
        with pytest.raises(DataError, match='val data set'):
            swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'wrong')


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'ClassBalancedDataset'])
def test_images_that_count_several_times(wrapper, use_data, tmp_path):
    cfg = load_config(str(CLASSIFIER), [*COMMON, *TINY])
    how = {'times': 2} if wrapper == 'RepeatDataset' else {'oversample_thr': 1.0}
    if wrapper == 'ClassBalancedDataset':
        # One class has a single image: it is drawn several times.
        how['dataset'] = {**cfg.val_dataloader.dataset, 'indices': [0, *range(2, 20)]}
    cfg.val_dataloader.dataset = {'dataset': cfg.val_dataloader.dataset, 'type': wrapper, **how}
    with pytest.raises(DataError, match='several times'):
        swinv2_mm.cli.train(cfg, work_dir=tmp_path)


def test_top_5_of_three_classes(use_data, tmp_path):
    options = [*COMMON, *TINY, 'val_evaluator.topk=(1,50)']
    with pytest.raises(UserError, match=r'topk=\(1,\)'):
        swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path, options=options)
    assert not list(tmp_path.glob('*.pth'))


class Listed(list):
    """A data set of images, by their paths."""

    num_left_out = 0
    innermost = property(lambda self: [self])

    def get_data_info(self, index):
        return {'img_path': self[index]}


@pytest.mark.parametrize(
    ('metric', 'words'),
    [
        (dict(type='Accuracy', topk=0), 'topk'),
        (dict(type='Accuracy', topk='1'), 'topk'),
        (dict(type='ConfusionMatrix', num_classes=5), 'num_classes is 5'),
        (dict(type='IoUMetric', iou_metrics=['mIOU']), 'mIOU'),
        (dict(type='IoUMetric', output_dir='out'), 'written to one file'),
    ],
)
def test_metric_that_fails_after_the_epoch(metric, words):
    images = Listed(['x/1.jpg', 'y/1.jpg', 'x/2.jpg'])
    with pytest.raises(UserError, match=words):
        check_scoring('val', images, [metric], num_classes=10)


def test_no_score_is_made_up():
    """AP is 0 where nothing was found, under the names that were asked for and no others."""
    metric = dict(type='CocoMetric', metric='bbox', metric_items=['mAP_50'])
    several = dict(type='MultiDatasetsEvaluator', metrics=[metric] * 2, dataset_prefixes=['a', 'b'])
    for evaluator, given, wanted in (
        (metric, {'coco/bbox_mAP_50': 0.7}, {'coco/bbox_mAP_50': 0.7}),
        (metric, {}, {'coco/bbox_mAP_50': 0}),
        (several, {'a/coco/bbox_mAP_50': 0.7},
         {'a/coco/bbox_mAP_50': 0.7, 'b/coco/bbox_mAP_50': 0}),
    ):  # fmt: skip
        EmptyDetectionHook({'val_evaluator': evaluator}).after_val_epoch(None, given)
        assert given == wanted


def test_several_labels_against_accuracy(use_data, tmp_path):
    cfg = load_config(str(CLASSIFIER), [*COMMON, *TINY])
    folder = use_data / 'digits' / 'folders' / 'val'
    images = sorted(path.relative_to(folder) for path in folder.rglob('*.*'))
    entries = [{'img_path': str(path), 'gt_label': [0, 1]} for path in images]
    metainfo = {'classes': [str(number) for number in range(10)]}
    (tmp_path / 'val.json').write_text(json.dumps({'metainfo': metainfo, 'data_list': entries}))
    cfg.val_dataloader.dataset = dict(
        type='MultiLabelDataset', data_root=str(folder), ann_file=str(tmp_path / 'val.json'),
        pipeline=cfg.val_dataloader.dataset.pipeline,
    )  # fmt: skip
    with pytest.raises(DataError, match='MultiLabelMetric'):
        swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'run')


def test_masks_of_a_detector_of_boxes(detector, tmp_path):
    cfg, _, _ = detector
    cfg.model.roi_head.mask_head = cfg.model.roi_head.mask_roi_extractor = None
    with pytest.raises(UserError, match='mask head'):
        swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'run')
