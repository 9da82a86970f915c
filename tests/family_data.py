"""Two images, as the models of mmdet, mmseg and mmpretrain want them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from family_backbones import dictionaries
from mmengine.config import Config


def num_classes(model: Any) -> int:
    """The smallest number of classes that a part of the model has."""
    found = [
        value
        for _, node in dictionaries(model, '')
        for key, value in node.items()
        if key in ('num_classes', 'num_things_classes') and isinstance(value, int) and value > 0
    ]
    return min(found, default=80)


def detection_data(
    cfg: Config, model: dict[str, Any], *, is_training: bool, side: int
) -> dict[str, Any]:
    from mmdet.testing import demo_mm_inputs, demo_mm_proposals, demo_track_inputs

    classes = num_classes(model)
    kind = (model.get('data_preprocessor') or {}).get('type')
    shape = (3, side, side)
    if kind == 'TrackDataPreprocessor' and not (
        is_training and model['data_preprocessor'].get('use_det_processor')
    ):
        frames, keys = (2, [0]) if is_training else (1, None)
        return demo_track_inputs(
            batch_size=1, num_frames=frames, key_frames_inds=keys, image_shapes=shape,
            num_items=[4], num_classes=1, with_mask=True,
        )  # fmt: skip
    if kind == 'ReIDDataPreprocessor':
        return reid_data()
    if kind == 'LineDetDataProcessor':
        return lane_data()
    batch = 2 if is_training else 1  # masked convolution takes one image
    data = demo_mm_inputs(
        batch, [shape] * batch, num_items=[4] * batch, num_classes=min(max(classes, 2), 80),
        with_mask='with_mask=True' in cfg.pretty_text, with_semantic=True,
    )  # fmt: skip
    for sample, proposals in zip(
        data['data_samples'], demo_mm_proposals([shape] * batch, 50), strict=True
    ):
        sample.gt_instances.labels %= classes
        if 'rpn_head' not in model:
            sample.proposals = proposals
        sample.set_metainfo({'batch_input_shape': shape[1:], 'pad_shape': shape[1:]})
    if kind == 'MultiBranchDataPreprocessor':
        branches = ('sup', 'unsup_teacher', 'unsup_student') if is_training else ()
        if branches:
            for sample in data['data_samples']:
                sample.set_metainfo({'homography_matrix': np.eye(3, dtype=np.float32)})
            data = {key: dict.fromkeys(branches, value) for key, value in data.items()}
    return data


def reid_data() -> dict[str, Any]:
    from mmdet.structures import ReIDDataSample

    samples = [ReIDDataSample().set_gt_label(label) for label in (0, 0, 1, 1)]
    return {
        'inputs': [torch.randint(0, 255, (3, 256, 128), dtype=torch.uint8) for _ in samples],
        'data_samples': samples,
    }


def lane_data() -> dict[str, Any]:
    raise NotImplementedError('its pipeline reads a data set of lanes that is not public')


def segmentation_data(
    cfg: Config, model: dict[str, Any], *, is_training: bool, side: int
) -> dict[str, Any]:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    size = (side, side)
    classes = num_classes({key: value for key, value in model.items() if key.endswith('_head')})
    samples, inputs = [], []
    for _ in range(2):
        inputs.append(torch.randint(0, 255, (3, *size), generator=generator).byte())
        labels = torch.randint(0, classes, (1, side // 8, side // 8), generator=generator)
        labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        sample.set_data({'gt_edge_map': PixelData(data=(labels % 2))})
        sample.set_data({'gt_depth_map': PixelData(data=torch.rand(1, *size) * 9 + 0.5)})
        meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'scale_factor': (1.0, 1.0)}
        sample.set_metainfo({**meta, 'flip': False, 'img_path': 'image.png', 'category_id': 1})
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}


def classification_data(
    cfg: Config, model: dict[str, Any], *, is_training: bool, side: int
) -> dict[str, Any]:
    """Of the config's own pipeline, hence of its size: it makes the views of self-supervision."""
    from mmengine.dataset import Compose
    from mmengine.registry import FUNCTIONS

    loader = cfg.get('train_dataloader' if is_training else 'test_dataloader')
    loader = loader or cfg.get('train_dataloader') or cfg.get('test_dataloader')
    if loader is None:  # a backbone alone
        if is_training:
            raise NotImplementedError('it has no head')
        size = (2, 3, 448, 448)
        return {'inputs': torch.randint(0, 255, size, dtype=torch.uint8), 'data_samples': None}
    dataset = loader['dataset']
    while 'pipeline' not in dataset:
        dataset = dataset['dataset']
    steps = [step for step in dataset['pipeline'] if not step['type'].startswith('LoadImage')]
    pipeline, generator = Compose(steps), np.random.default_rng(0)
    labels = [0, 1]
    if 'MultiLabel' in str(cfg.model.get('head', {}).get('type')) or 'CSRA' in str(cfg.model):
        labels = [[0], [1, 2]]
    samples = []
    for index, label in enumerate(labels):
        image = generator.integers(0, 255, (256, 256, 3), dtype=np.uint8)
        if len((cfg.get('data_preprocessor') or {}).get('mean', 'RGB')) == 1:
            image = image[..., 0]
        samples.append(
            pipeline(
                {'img': image, 'img_shape': (256, 256), 'ori_shape': (256, 256), 'gt_label': label,
                 'img_path': f'{index}.png', 'sample_idx': index}
            )
        )  # fmt: skip
    return FUNCTIONS.get(loader.get('collate_fn', {}).get('type', 'pseudo_collate'))(samples)
