"""Tiny models with random weights for the tests of test-time augmentation."""

import copy

import numpy as np
import torch
from conftest import ROOT
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from swinv2_mm.config.file import load_config
from swinv2_mm.tta.views import LoadedImage, build_views, split_test_pipeline

LEAVES = {
    'mmdet': ROOT / 'configs/detection/cascade-mask-rcnn_swinv2-nano-w8_digits.py',
    'mmseg': ROOT / 'configs/segmentation/upernet_swinv2-nano-w8_digits.py',
    'mmpretrain': ROOT / 'configs/classification/swinv2-nano-w8_digits.py',
}
_SHRUNK = [
    'model.backbone.arch=dict(embed_dim=16,depths=(1,2,1,1),num_heads=(1,2,4,8))',
    'test_dataloader.num_workers=0',
]
SHRUNK = {
    'mmdet': [*_SHRUNK, 'model.neck.in_channels=[16,32,64,128]'],
    'mmseg': [
        *_SHRUNK,
        'model.decode_head.in_channels=[16,32,64,128]',
        'model.auxiliary_head.in_channels=64',
    ],
    'mmpretrain': [*_SHRUNK, 'model.head.in_channels=128'],
}


def shrunk_config(scope, *options):
    return load_config(str(LEAVES[scope]), [*SHRUNK[scope], *options])


def scope_of(cfg):
    return DefaultScope.overwrite_default_scope(cfg.default_scope)


def random_model(cfg, *, seed=0):
    """Build a model whose predictions differ clearly between places and classes."""
    torch.manual_seed(seed)
    with scope_of(cfg):
        model = MODELS.build(cfg.model)
        model.init_weights()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and 'backbone' not in name:
                # Not the official start, from which every class is as likely as any other.
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * (2 / parameter[0].numel()) ** 0.5)
            elif name.startswith('backbone') and 'norm' in name and name.endswith('weight'):
                parameter.fill_(1.0)  # zero at the start: the block would do nothing
    for name, buffer in model.named_buffers():
        if name.endswith('running_var'):
            buffer.fill_(4.0)
    return model.eval()


def two_stage_config(kind):
    """The digits' Cascade Mask R-CNN, or one of its relatives with the same parts."""
    cfg = shrunk_config('mmdet')
    head = cfg.model.roi_head
    if kind == 'mask-rcnn':
        cfg.model.type = 'MaskRCNN'
        cfg.model.roi_head = {k: v for k, v in head.items() if not k.startswith('stage_loss')}
        cfg.model.roi_head.update(type='StandardRoIHead', bbox_head=head.bbox_head[0])
        cfg.model.roi_head.bbox_head.reg_class_agnostic = False
        del cfg.model.roi_head['num_stages']
        cfg.model.train_cfg.rcnn = cfg.model.train_cfg.rcnn[0]
    elif kind == 'htc':
        cfg.model.type = 'HybridTaskCascade'
        head.type = 'HybridTaskCascadeRoIHead'
        mask = dict(head.mask_head, type='HTCMaskHead', in_channels=64, conv_out_channels=64)
        head.mask_head = [ConfigDict(mask, with_conv_res=stage > 0) for stage in range(3)]
        head.semantic_roi_extractor = ConfigDict(
            type='SingleRoIExtractor', out_channels=64, featmap_strides=[8],
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
        )  # fmt: skip
        head.semantic_head = ConfigDict(
            type='FusedSemanticHead', num_ins=5, fusion_level=1, num_convs=1, in_channels=64,
            conv_out_channels=64, num_classes=5,
        )  # fmt: skip
    return cfg


def random_image(height, width, *, seed=0):
    """An image without any symmetry: blocks of random colours."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = np.ascontiguousarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))[:height, :width])
    return LoadedImage(
        dict(
            img=image, img_path=f'{seed}.jpg', img_id=seed, sample_idx=seed,
            img_shape=(height, width), ori_shape=(height, width), seg_fields=[],
        )
    )  # fmt: skip


def view_configs(cfg, scales, flips):
    """The views of a config's test pipeline, without the reading of annotations."""
    cfg = copy.deepcopy(cfg)
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = [t for t in dataset.pipeline if t.type != 'LoadAnnotations']
    cfg.tta = dict(scales=scales, flips=flips)
    return split_test_pipeline(cfg)


def views_of(cfg, scales, flips):
    """The same, built."""
    with scope_of(cfg):
        return build_views(view_configs(cfg, scales, flips))


def symmetrise(model):
    """Change weights so that the model commutes with mirroring an image from left to right.

    Holds where windows and strides divide the maps. Every kernel becomes its own mirror image;
    boxes keep their centres' horizontal place, the one output that would have to change sign.
    """
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
            if name.endswith('cpb_mlp.0'):
                module.weight[:, 1] = 0  # the bias no longer depends on the horizontal offset
            if name.endswith('downsample.reduction'):
                # Columns first, then rows, then channels.
                weight = module.weight.unflatten(1, (2, -1))
                module.weight.copy_(((weight + weight.flip(1)) / 2).flatten(1))
            if name.endswith('shared_fcs.0'):
                weight = module.weight.unflatten(1, (-1, 7, 7))
                module.weight.copy_(((weight + weight.flip(-1)) / 2).flatten(1))
            if name.endswith(('rpn_reg', 'fc_reg')):
                module.weight[0::4] = 0
                module.bias[0::4] = 0
    return model
