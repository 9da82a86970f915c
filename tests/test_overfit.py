"""A few training images are learnt by heart, through the tools: every part has to work for that."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, SHARED_DATA

CASES = {
    'balloon': (
        'detection/cascade-mask-rcnn_swinv2-nano-w12_balloon.py',
        8,
        [
            'train_cfg.max_iters=500',
            'param_scheduler.1.end=500',
            'param_scheduler.1.T_max=400',
            'model.backbone.drop_path_rate=0.0',
            # The same picture in training and testing: no change of scale, no crop.
            'train_dataloader.dataset.pipeline.3.scale=(256,256)',
            'train_dataloader.dataset.pipeline.3.ratio_range=(1.0,1.0)',
            'train_dataloader.dataset.pipeline.4.crop_size=(256,256)',
            'test_dataloader.dataset.pipeline.1.scale=(256,256)',
        ],
        ['test_dataloader.dataset.data_prefix.img=train/'],
        {'coco/bbox_mAP_50': 0.80, 'coco/segm_mAP_50': 0.80},
    ),
    'facade': (
        'segmentation/upernet_swinv2-nano-w8_facade.py',
        8,
        [
            'train_cfg.max_iters=550',
            'param_scheduler.1.end=550',
            'param_scheduler.1.T_max=450',
            'train_dataloader.batch_size=4',
            'optim_wrapper.optimizer.lr=2e-3',
            # Some classes have a hundredth of the pixels that others have.
            'model.decode_head.loss_decode.class_weight=[1,1,2,4,1,3,4,4,4,6,6]',
            'train_dataloader.dataset.pipeline.6.brightness_delta=0',
            'train_dataloader.dataset.pipeline.6.contrast_range=(1.0,1.0)',
            'train_dataloader.dataset.pipeline.6.saturation_range=(1.0,1.0)',
            'train_dataloader.dataset.pipeline.6.hue_delta=1',
            'model.backbone.drop_path_rate=0.0',
            'model.decode_head.dropout_ratio=0.0',
            'train_dataloader.dataset.pipeline.3.ratio_range=(1.0,1.0)',
            'test_dataloader.dataset.pipeline.1.scale=(256,256)',
        ],
        [
            'test_dataloader.dataset.data_prefix.img_path=images/training',
            'test_dataloader.dataset.data_prefix.seg_map_path=annotations/training',
        ],
        {'mIoU': 70.0},
    ),
    'flowers': (
        'classification/swinv2-nano-w8_flowers.py',
        50,
        [
            'train_cfg.max_epochs=160',
            'param_scheduler.1.end=160',
            'param_scheduler.1.T_max=155',
            'train_dataloader.batch_size=25',
            'model.backbone.drop_path_rate=0.0',
            'train_dataloader.dataset.pipeline.2.crop_ratio_range=(0.5,1.0)',
        ],
        ['test_dataloader.dataset.data_prefix=train'],
        {'accuracy/top1': 100.0},
    ),
}


def first_annotations(path, num_images, target):
    """Write a COCO file of the first images: the metric counts every image of its file."""
    coco = json.loads(path.read_text())
    coco['images'] = coco['images'][:num_images]
    kept = {image['id'] for image in coco['images']}
    coco['annotations'] = [a for a in coco['annotations'] if a['image_id'] in kept]
    target.write_text(json.dumps(coco))


# Spread over the classes, which follow each other in the file lists.
INDICES = {'flowers': list(range(0, 600, 12))}


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_learns_by_heart(name, tmp_path, subprocess_environment):
    if not SHARED_DATA.is_dir():
        pytest.skip('needs ../shared/data')
    config, num_images, training, testing, wanted = CASES[name]
    indices = json.dumps(INDICES.get(name, num_images)).replace(' ', '')
    environment = {**subprocess_environment, 'SWINV2_DATA': str(SHARED_DATA)}

    training = [*training, f'+train_dataloader.dataset.indices={indices}']
    testing = [*testing, f'+test_dataloader.dataset.indices={indices}']
    if name == 'balloon':
        subset = tmp_path / 'subset.json'
        first_annotations(SHARED_DATA / 'balloon/annotations/train.json', num_images, subset)
        training.append(f'train_dataloader.dataset.ann_file={subset}')
        testing += [
            f'{key}.ann_file={subset}' for key in ('test_dataloader.dataset', 'test_evaluator')
        ]

    def run(tool, *arguments):
        command = [sys.executable, f'tools/{tool}.py', f'configs/{config}', *map(str, arguments)]
        assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 0

    no_validation = ['+val_dataloader=None', '+val_cfg=None', '+val_evaluator=None']
    run('train', '--work-dir', tmp_path, '--cfg-options', *training, *no_validation)
    checkpoint = (tmp_path / 'last_checkpoint').read_text().strip()
    run(
        'test', checkpoint, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'scores.json',
        '--cfg-options', *training, *testing,
    )  # fmt: skip
    scores = json.loads((tmp_path / 'scores.json').read_text())['metrics']
    print(name, {key: scores[key] for key in wanted})
    assert all(scores[key] >= least for key, least in wanted.items()), scores
