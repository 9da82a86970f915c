# Trains: HTC++ with a narrow SwinV2, from scratch, boxes only, on building facades: the first of two stages.
# Command: python tools/train.py configs/detection/htc++-box_swinv2-nano-w12_facade.py
# Hardware: one CPU core; 600 iterations not run, 150 take 2.6 minutes of processor time.
# Score: not measured
# Source: own recipe for small data; the detector as htc++-box_swinv2-g-w32_ms-67k_objects365.py.
_base_ = ['../_base_/models/htc++-box-small.py', '../_base_/backbones/nano.py', '../_base_/datasets/facade-box.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=12), neck=dict(in_channels=_base_.channels),
    roi_head=dict(bbox_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.roi_head.bbox_head]))
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=6e-4))
train_cfg = dict(max_iters=600, val_interval=600)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=600, T_max=500)]
default_hooks = dict(checkpoint=dict(interval=600))
