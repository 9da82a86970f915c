# Trains: Cascade Mask R-CNN with a narrow SwinV2 on the digits of `make demo`, which runs it.
# Command: make demo
# Hardware: two CPU cores, 2 minutes.
# Score: box AP50 75.3 %, mask AP50 75.1 % (docs/results.md)
# Source: own recipe for a demonstration; the detector as in the paper's appendix A2.1.
_base_ = ['../_base_/models/cascade-mask-rcnn-small.py', '../_base_/backbones/nano.py', '../_base_/datasets/digits-instance.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=8), neck=dict(in_channels=_base_.channels),
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.roi_head.bbox_head],
        mask_head=dict(num_classes=_base_.num_classes)))
train_cfg = dict(max_iters=300, val_interval=300)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=300, T_max=200)]
default_hooks = dict(checkpoint=dict(interval=300), logger=dict(interval=10))
