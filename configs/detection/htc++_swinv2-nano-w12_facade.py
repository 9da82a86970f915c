# Trains: HTC++ with a narrow SwinV2 on building facades: boxes, masks and label maps, after the box stage.
# Command: python tools/train.py configs/detection/htc++_swinv2-nano-w12_facade.py
# Hardware: one CPU core; 600 iterations not run, 110 take 4.5 minutes of processor time.
# Score: box AP50 0.055, mask AP50 0.050 after 150 iterations of the box stage and 110 of this one
# Source: own recipe for small data; the detector as htc++_swinv2-g-w32_lsj-45k_coco.py.
_base_ = ['../_base_/models/htc++-small.py', '../_base_/backbones/nano.py', '../_base_/datasets/htc-facade.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/detection.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.htc_plus_plus'])  # InstaBoost
model = dict(
    backbone=dict(_base_.backbone, window_size=12), neck=dict(in_channels=_base_.channels),
    roi_head=dict(
        bbox_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.roi_head.bbox_head],
        mask_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.roi_head.mask_head],
        semantic_head=dict(num_classes=_base_.num_semantic_classes)))
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=6e-4), paramwise_cfg=dict(backbone_lr_mult=0.1))
train_cfg = dict(max_iters=600, val_interval=600)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=600, T_max=500)]
default_hooks = dict(checkpoint=dict(interval=600))
load_from = 'work_dirs/htc++-box_swinv2-nano-w12_facade/iter_600.pth'
# The box stage has no such branches; its classes are the same.
fresh_parameters = ['roi_head.mask_head', 'roi_head.semantic_head']
