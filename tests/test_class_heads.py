"""Fine-tuning from another number of classes, and heads that do not fit the data."""

import json

import pytest
import torch
from test_bad_settings import NARROW, SEGMENTOR
from test_names_and_scores import DETECTOR_OPTIONS
from test_tools import CLASSIFIER, DETECTOR, SHORT, TINY

import swinv2_mm.cli
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.class_heads import differing_heads
from swinv2_mm.errors import DataError, UserError

COMMON = [*SHORT, 'train_dataloader.persistent_workers=False', 'train_dataloader.batch_size=2']
COMMON += ['train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1']
STILL = ['optim_wrapper.optimizer.lr=0', 'optim_wrapper.optimizer.weight_decay=0']
NAMES = ('two', 'zero', 'nine')


def few_classes(cfg, names=NAMES):
    """Change a detector's config to some of the classes of its data."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.metainfo = dict(classes=names)
    for head in (*cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = len(names)
    return cfg


def test_detector_on_other_classes(use_data, tmp_path):
    options = [*COMMON, *DETECTOR_OPTIONS]
    swinv2_mm.cli.train(DETECTOR, work_dir=tmp_path / 'ten', options=options)
    file = tmp_path / 'ten' / 'iter_1.pth'
    saved = torch.load(file, weights_only=False)['state_dict']
    cfg = few_classes(load_config(str(DETECTOR), [*options, *STILL]))
    cfg.load_from, cfg.randomness.seed = str(file), 7
    differing = {
        f'roi_head.{head}.{leaf}'
        for stage in range(3)
        for head in (f'bbox_head.{stage}.fc_cls', f'mask_head.{stage}.conv_logits')
        for leaf in ('weight', 'bias')
    }
    with pytest.raises(UserError, match="fresh_parameters='heads'") as caught:
        swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'refused')
    assert all(name in str(caught.value) for name in differing)
    assert '10 classes' in str(caught.value) and 'model 3' in str(caught.value)
    cfg.fresh_parameters = 'heads'
    runner = swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'three')
    for name, value in runner.model.state_dict().items():
        is_same = value.shape == saved[name].shape and torch.equal(value, saved[name])
        assert is_same != (name in differing) or 'running' in name, name
    (log,) = tmp_path.glob('three/*/*.log')
    assert f'{len(differing)} tensors keep their initial values' in log.read_text()
    # What is resumed or tested has been trained: nothing of it starts anew.
    with pytest.raises(UserError, match='checkpoint'):
        swinv2_mm.cli.test(cfg, file, work_dir=tmp_path / 'tested')


@pytest.mark.parametrize(
    ('saved', 'wanted', 'num_classes', 'found'),
    [
        ({'h.w': (81, 5), 'b.w': (320, 5)}, {'h.w': (4, 5), 'b.w': (12, 5)}, 3, 80),
        ({'h.w': (720, 5)}, {'h.w': (9, 5)}, 1, 80),
        ({'h.w': (80, 5)}, {'h.w': (3, 6)}, 3, None),
        ({'h.w': (81,), 'g.w': (19,)}, {'h.w': (4,), 'g.w': (3,)}, 3, None),
        ({'backbone.w': (80,)}, {'backbone.w': (3,)}, 3, None),
        ({'h.w': ()}, {'h.w': (3,)}, 3, None),
    ],
)
def test_what_explains_the_shapes(saved, wanted, num_classes, found):
    heads = differing_heads(saved, wanted, num_classes=num_classes)
    assert (heads and heads.num_saved) == found


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
@pytest.mark.parametrize('number', [5, 12])
def test_segmentor_of_another_number_of_classes(head, number, use_data, tmp_path):
    cfg = load_config(str(SEGMENTOR), [*COMMON, NARROW])
    cfg.model.decode_head.in_channels = [16, 32, 64, 128]
    if not cfg.model.get('auxiliary_head'):
        cfg.model.auxiliary_head = dict(
            type='FCNHead', in_channels=64, in_index=2, channels=8, num_classes=11
        )
    cfg.model.auxiliary_head.in_channels = 64
    cfg.model[head].num_classes = number
    with pytest.raises(DataError, match=f'model.{head}.num_classes is {number}, should be 11'):
        swinv2_mm.cli.train(cfg, work_dir=tmp_path)


def test_detector_of_fewer_classes_than_its_data(use_data, tmp_path):
    cfg = few_classes(load_config(str(DETECTOR), [*COMMON, *DETECTOR_OPTIONS]))
    cfg.model.roi_head.bbox_head[1].num_classes = 2
    with pytest.raises(DataError, match=r'bbox_head\.1\.num_classes is 2, should be 3'):
        swinv2_mm.cli.train(cfg, work_dir=tmp_path)


def test_report_of_a_model_without_classes(use_data, tmp_path):
    options = [*COMMON, *TINY]
    swinv2_mm.cli.train(CLASSIFIER, work_dir=tmp_path, options=options)
    (config,) = tmp_path.glob('*.py')
    change = ["model=dict(_delete_=True,type='MAE',backbone=dict(type='MAEViT'),head=dict())"]
    with pytest.raises(UserError):
        swinv2_mm.cli.report(tmp_path, config=config, options=change)


def test_text_ids_of_images(use_data, tmp_path):
    """Ids that are texts are scored by test, and written by infer as they are."""
    cfg = load_config(str(DETECTOR), [*COMMON, *DETECTOR_OPTIONS])
    annotations = use_data / 'digits' / cfg.val_dataloader.dataset.ann_file
    content = json.loads(annotations.read_text())
    for image in content['images']:
        image['id'] = f'img-{image["id"]}'
    (tmp_path / 'ids.json').write_text(json.dumps(content))
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    swinv2_mm.cli.train(cfg, work_dir=tmp_path / 'run')
    swinv2_mm.cli.infer(
        cfg, tmp_path / 'run' / 'iter_1.pth', use_data / 'digits' / 'images' / 'val',
        out=tmp_path / 'out', device='cpu', coco_ids=tmp_path / 'ids.json',
    )  # fmt: skip
    results = json.loads((tmp_path / 'out' / 'coco_results.json').read_text())
    assert {result['image_id'] for result in results} <= {i['id'] for i in content['images']}
    assert results
