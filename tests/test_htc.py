"""HTC++ through its real pipelines: both stages, the semantic branch, soft-NMS."""

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SHARED_DATA
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.structures import PixelData
from pycocotools import mask as coco_mask
from tiny_data import category_ids

import swinv2_mm.models  # noqa: F401
from swinv2_mm.config.file import load_config
from swinv2_mm.engine.runner import CheckedRunner

pytest.importorskip('mmdet.models')
from mmcv.transforms import Compose
from mmdet.datasets import CocoDataset, Objects365V2Dataset
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

CONFIGS = ROOT / 'configs/detection'
SIZE_PX = 128
SHRUNK = [
    'load_from=None',
    'model.backbone.arch=dict(_delete_=True,embed_dim=16,depths=(1,1,1,1),num_heads=(1,2,4,8))',
    'model.neck.in_channels=[16,32,64,128]',
    *(f'model.roi_head.bbox_head.{i}.fc_out_channels=32' for i in range(3)),
    *(f'model.train_cfg.rcnn.{i}.sampler.num=8' for i in range(3)),
    'model.train_cfg.rpn_proposal.max_per_img=50',
    'model.test_cfg.rpn.max_per_img=30',
    'model.test_cfg.rcnn.max_per_img=5',
    'train_dataloader.batch_size=2',
    '+train_dataloader.dataset.indices=4',
    '+test_dataloader.dataset.indices=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'val_dataloader=None',
    'val_cfg=None',
    'val_evaluator=None',
    'train_cfg.max_iters=2',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
]
# Where the transforms that set the size are in the pipelines.
BOX_SIZES = [f'train_dataloader.dataset.pipeline.3.scale=[({SIZE_PX},96),({SIZE_PX},{SIZE_PX})]']
MASK_SIZES = [
    f'train_dataloader.dataset.pipeline.5.scale=({SIZE_PX},{SIZE_PX})',
    f'train_dataloader.dataset.pipeline.6.crop_size=({SIZE_PX},{SIZE_PX})',
    'train_dataloader.dataset.pipeline.4.apply_rate=1.0',
]
TEST_SIZE = [f'test_dataloader.dataset.pipeline.1.scale=({SIZE_PX},{SIZE_PX})']
FRESH = ('roi_head.mask_head.', 'roi_head.semantic_head.')


@pytest.fixture(scope='module')
def large_sets(digits_root, tmp_path_factory):
    """COCO with COCO-Stuff, and Objects365, by layout and class names, with pictures of digits."""
    root = tmp_path_factory.mktemp('large')
    coco, objects = root / 'coco', root / 'objects365'
    names = {
        'coco': CocoDataset.METAINFO['classes'],
        'objects365': Objects365V2Dataset.METAINFO['classes'],
    }
    assert len(names['coco']) == 80 and len(set(names['objects365'])) == 365
    files = {('train', coco): 'instances_train2017', ('val', coco): 'instances_val2017'}
    files |= {(s, objects): f'zhiyuan_objv2_{s}' for s in ('train', 'val')}
    for (split, target), name in files.items():
        document = json.loads((digits_root / f'digits/annotations/{split}.json').read_text())
        images = target / (f'{split}2017' if target is coco else f'{split}/patch0')
        shutil.copytree(digits_root / 'digits/images' / split, images)
        for image in document['images'] if target is objects else ():
            image['file_name'] = f'images/v1/patch0/{image["file_name"]}'
        ids = category_ids(len(names[target.name]))
        for i, annotation in enumerate(document['annotations']):
            annotation['category_id'] = ids[7 * i % len(ids)]
            if target is objects:
                del annotation['segmentation']
            elif i % 3 == 0:
                mask = np.zeros((SIZE_PX, SIZE_PX), dtype=np.uint8, order='F')
                x, y, w, h = map(int, annotation['bbox'])
                mask[y : y + h, x : x + w] = 1
                encoded = coco_mask.encode(mask)
                annotation['segmentation'] = {
                    'size': [SIZE_PX, SIZE_PX],
                    'counts': encoded['counts'].decode(),
                }
                annotation['iscrowd'] = int(i % 6 == 0)
        document['categories'] = [
            {'id': id, 'name': name} for id, name in zip(ids, names[target.name], strict=True)
        ]
        (target / 'annotations').mkdir(exist_ok=True)
        (target / f'annotations/{name}.json').write_text(json.dumps(document))
    shutil.copytree(digits_root / 'digits/label_maps/train', coco / 'stuffthingmaps/train2017')
    return root


def losses(work_dir):
    return [
        {k: v for k, v in json.loads(line).items() if 'loss' in k}
        for path in work_dir.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]


def run_two_stages(tool, folder, *, box, mask, box_options, mask_options):
    """Train the box stage, then the mask stage from it; check what was carried over; test both."""
    pytest.importorskip('instaboostfast')
    box, mask = CONFIGS / f'{box}.py', CONFIGS / f'{mask}.py'
    box_options = [*SHRUNK, *TEST_SIZE, *box_options]
    mask_options = [*SHRUNK, *TEST_SIZE, *mask_options]

    def run(name, *arguments):
        status, errors = tool(name, *arguments)
        assert status == 0, errors

    run('train', box, '--work-dir', folder / 'box', '--cfg-options', *box_options)
    first = folder / 'box/iter_2.pth'
    found = losses(folder / 'box')
    assert len(found) == 2 and not any('mask' in k or 'semantic' in k for k in found[0])
    assert all(np.isfinite(v) for entry in found for v in entry.values())

    # Without a learning rate, what was loaded is what is saved.
    trained = folder / 'mask/iter_2.pth'
    run(
        'train', mask, '--work-dir', folder / 'mask', '--cfg-options', *mask_options,
        f'load_from={first}', 'optim_wrapper.optimizer.lr=0.0',
    )  # fmt: skip
    old, still = (torch.load(path, weights_only=False)['state_dict'] for path in (first, trained))
    classes = {k for k in still if 'fc_cls' in k and still[k].shape != old[k].shape}
    carried = [k for k in still if not k.startswith(FRESH) and k not in classes]
    assert all(torch.equal(still[k], old[k]) for k in carried)
    assert set(old) == {k for k in still if not k.startswith(FRESH)} and set(still) > set(old)

    found = losses(folder / 'mask')
    assert len(found) == 2
    assert {'loss_semantic_seg', 's0.loss_mask', 's1.loss_mask', 's2.loss_mask'} <= set(found[0])
    assert all(np.isfinite(v) for entry in found for v in entry.values())

    # What is tested is what was trained, although the config has fresh parameters.
    cfg = load_config(str(mask), [*mask_options, f'load_from={trained}', '+randomness.seed=1'])
    cfg.work_dir, cfg.launcher = str(folder / 'loaded'), 'none'
    runner = CheckedRunner.from_cfg(cfg)
    runner.load_or_resume()
    assert all(torch.equal(v, still[k]) for k, v in runner.model.state_dict().items())

    for config, checkpoint, options, kinds in (
        (box, first, box_options, {'bbox'}),
        (mask, trained, mask_options, {'bbox', 'segm'}),
    ):
        out = folder / 'scores.json'
        run('test', config, checkpoint, '--out', out, '--work-dir', folder / 'test',
            '--window-size', 4, '--cfg-options', *options)  # fmt: skip
        metrics = json.loads(out.read_text())['metrics']
        assert {key.split('/')[1].split('_')[0] for key in metrics} == kinds


@pytest.mark.parametrize(
    ('size', 'schedule'),
    [
        ('b', '3x'),
        pytest.param('l', '3x', marks=pytest.mark.slow),
        pytest.param('g', '45k', marks=pytest.mark.slow),
    ],
)
def test_objects365_then_coco(size, schedule, tool, large_sets, tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(large_sets))
    run_two_stages(
        tool,
        tmp_path,
        box=f'htc++-box_swinv2-{size}-w32_ms-67k_objects365',
        mask=f'htc++_swinv2-{size}-w32_lsj-{schedule}_coco',
        box_options=BOX_SIZES,
        mask_options=MASK_SIZES,
    )


@pytest.mark.slow
def test_facade(tool, tmp_path, monkeypatch):
    if not (SHARED_DATA / 'facade').is_dir():
        pytest.skip('needs ../shared/data')
    monkeypatch.setenv('SWINV2_DATA', str(SHARED_DATA))
    run_two_stages(
        tool,
        tmp_path,
        box='htc++-box_swinv2-nano-w12_facade',
        mask='htc++_swinv2-nano-w12_facade',
        box_options=[],
        mask_options=MASK_SIZES,
    )


@pytest.fixture
def coco(large_sets, monkeypatch):
    """The config of the COCO stage, shrunk."""
    monkeypatch.setenv('SWINV2_DATA', str(large_sets))
    return load_config(
        str(CONFIGS / 'htc++_swinv2-b-w32_lsj-3x_coco.py'), [*SHRUNK, *TEST_SIZE, *MASK_SIZES]
    )


def test_label_map_follows_the_image(coco):
    """Jitter, crop and flip, on a picture whose grey says the label."""
    pipeline = coco.train_dataloader.dataset.pipeline
    steps = [t for t in pipeline if t.type in ('RandomResize', 'RandomCrop', 'RandomFlip')]
    assert len(steps) == 3
    labels = np.zeros((100, 140), dtype=np.uint8)
    labels[:, 50:] = 2
    labels[40:, :90] = 5
    with DefaultScope.overwrite_default_scope('mmdet'):
        augment = Compose(steps)
        seen = set()
        for seed in range(12):
            np.random.seed(seed)
            image = np.repeat((labels * 40)[:, :, None], 3, axis=2)
            results = augment(
                {
                    'img': image,
                    'img_shape': labels.shape,
                    'gt_seg_map': labels.copy(),
                    'gt_bboxes': HorizontalBoxes([[0, 40, 90, 100]]),
                    'gt_bboxes_labels': np.array([0]),
                    'gt_ignore_flags': np.array([False]),
                    'gt_masks': BitmapMasks((labels == 5)[None].astype(np.uint8), *labels.shape),
                }
            )
            seen.add(results['flip'])
            assert results['gt_seg_map'].shape == results['img'].shape[:2]
            grey = np.rint(results['img'][:, :, 0] / 40)
            # Blended edges are few, but for the smallest.
            share = 0.97 if min(results['img_shape']) > 40 else 0.8
            assert (grey == results['gt_seg_map']).mean() > share
            if len(results['gt_masks']):
                agreement = results['gt_masks'].masks[0] == (results['gt_seg_map'] == 5)
                assert agreement.mean() > share
    assert seen == {True, False}


def data_batch(cfg):
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'indices': 2})
    return [dataset[0], dataset[1]]


@pytest.fixture
def scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def collated(cfg, model):
    return model.data_preprocessor(pseudo_collate(data_batch(cfg)), training=True)


def test_semantic_labels_fit_the_prediction(coco, scope, monkeypatch):
    pytest.importorskip('instaboostfast')
    torch.manual_seed(0)
    np.random.seed(3)
    model = MODELS.build(coco.model)
    data = collated(coco, model)
    seen = []
    head = model.roi_head.semantic_head
    head.criterion.register_forward_pre_hook(lambda module, args: seen.append(args))
    model.loss(data['inputs'], data['data_samples'])
    prediction, labels = seen[0]
    height, width = data['inputs'].shape[-2:]
    assert height % 32 == width % 32 == 0
    assert prediction.shape == (2, 183, height // 8, width // 8)
    assert labels.shape == (2, height // 8, width // 8)
    for sample, row in zip(data['data_samples'], labels, strict=True):
        h, w = sample.img_shape
        # Beyond the image nothing is known; inside are the digits' labels, 0 to 10.
        assert (row[-(-h // 8) :] == 255).all() and (row[:, -(-w // 8) :] == 255).all()
        inside = row[: h // 8, : w // 8]
        assert ((inside <= 10) | (inside == 255)).all() and (inside <= 10).any()


def test_images_without_instances_train(coco, scope):
    model = MODELS.build(coco.model)
    pytest.importorskip('instaboostfast')
    data = collated(coco, model)
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    loss, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    loss.backward()
    assert torch.isfinite(loss)
    # No parameter is without a gradient: a distributed wrapper would wait for it.
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_images_smaller_than_an_anchor_train(coco, scope):
    """What jitter makes of long and narrow pictures."""
    model = MODELS.build(coco.model)
    pytest.importorskip('instaboostfast')
    data = collated(coco, model)
    for sample in data['data_samples']:
        sample.set_metainfo({'img_shape': (12, 30), 'pad_shape': (32, 32)})
        sample.gt_instances = sample.gt_instances[:0]
    loss, _ = model.parse_losses(
        model.loss(data['inputs'][:, :, :32, :32], [with_map(s) for s in data['data_samples']])
    )
    assert torch.isfinite(loss)


def with_map(sample):
    sample.gt_sem_seg = PixelData(sem_seg=sample.gt_sem_seg.sem_seg[:, :32, :32])
    sample.set_metainfo({'batch_input_shape': (32, 32)})
    return sample


def test_without_instaboost_one_line_says_what_to_install(tool, large_sets, tmp_path, monkeypatch):
    monkeypatch.setenv('SWINV2_DATA', str(large_sets))
    monkeypatch.setitem(sys.modules, 'instaboostfast', None)
    path = CONFIGS / 'htc++_swinv2-b-w32_lsj-3x_coco.py'
    status, errors = tool('train', path, '--work-dir', tmp_path, '--cfg-options', *SHRUNK)
    assert status == 1
    assert 'CheckedInstaBoost needs instaboostfast' in errors.splitlines()[-1]
    assert 'Traceback' not in errors


@pytest.mark.parametrize('stage', ['box', 'mask'])
def test_every_cascade_stage_gets_refined_boxes(stage, coco, scope, large_sets):
    pytest.importorskip('instaboostfast')
    if stage == 'box':
        cfg = load_config(
            str(CONFIGS / 'htc++-box_swinv2-b-w32_ms-67k_objects365.py'), [*SHRUNK, *BOX_SIZES]
        )
    else:
        cfg = coco
    model = MODELS.build(cfg.model)
    data = collated(cfg, model)
    refined = []
    for i, head in enumerate(model.roi_head.bbox_head):

        def counted(*args, i=i, real=head.refine_bboxes, **kwargs):
            refined.append(i)
            return real(*args, **kwargs)

        head.refine_bboxes = counted
    model.loss(data['inputs'], data['data_samples'])
    # The interleaved cascade refines for its mask branch as well.
    assert refined == ([0, 1] if stage == 'box' else [0, 1, 2])


def test_soft_nms_runs_at_test(coco, scope, monkeypatch):
    # Not an attribute of mmcv.ops: the function of this name hides it.
    ops = importlib.import_module('mmcv.ops.nms')
    calls = []
    real = ops.soft_nms
    monkeypatch.setattr(ops, 'soft_nms', lambda *a, **k: calls.append(k) or real(*a, **k))
    model = MODELS.build(coco.model).eval()
    samples = [DATASETS.build(coco.test_dataloader.dataset)[0]]
    with torch.no_grad():
        result = model.test_step(pseudo_collate(samples))[0].pred_instances
    assert calls and all(k['iou_threshold'] == 0.5 for k in calls)
    assert len(result.bboxes) == 5 and result.masks.shape == (5, SIZE_PX, SIZE_PX)
