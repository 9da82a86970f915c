# Trains: UperNet with a narrow SwinV2, from scratch, on building facades (11 classes).
# Command: python tools/train.py configs/segmentation/upernet_swinv2-nano-w8_facade.py
# Hardware: one CPU core, 17 minutes.
# Score: mIoU 18.5 % (docs/results.md)
# Source: own recipe for small data; UperNet and AdamW as in the paper's appendix A2.2.
_base_ = ['../_base_/models/upernet-small.py', '../_base_/backbones/nano.py', '../_base_/datasets/facade-semantic.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/segmentation.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size_px), backbone=dict(_base_.backbone, window_size=8),
    decode_head=dict(in_channels=_base_.channels, num_classes=_base_.num_classes),
    auxiliary_head=dict(in_channels=_base_.channels_of_stage_2, num_classes=_base_.num_classes))
train_cfg = dict(max_iters=640, val_interval=320)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=640, T_max=540)]
default_hooks = dict(checkpoint=dict(interval=320))
