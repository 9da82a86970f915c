# Trains: Cascade Mask R-CNN with a narrow SwinV2, from scratch, on building facades (10 classes).
# Command: python tools/train.py configs/detection/cascade-mask-rcnn_swinv2-nano-w12_facade.py
# Hardware: one CPU core, 17 minutes.
# Score: box AP50 0.067, mask AP50 0.060 (docs/results.md)
# Source: own recipe for small data; the detector as in the paper's appendix A2.1 (ablation).
_base_ = ['../_base_/models/cascade-mask-rcnn-small.py', '../_base_/backbones/nano.py', '../_base_/datasets/facade-instance.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=12), neck=dict(in_channels=_base_.channels),
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.roi_head.bbox_head],
        mask_head=dict(num_classes=_base_.num_classes)))
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=6e-4))
train_cfg = dict(max_iters=900, val_interval=900)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=900, T_max=800)]
default_hooks = dict(checkpoint=dict(interval=450))
