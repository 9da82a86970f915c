# Trains: UperNet with a narrow SwinV2 on the digits of `make demo`, which runs it.
# Command: make demo
# Hardware: two CPU cores, 4 minutes.
# Score: mIoU 27.2 % (docs/results.md)
# Source: own recipe for a demonstration; UperNet as in the paper's appendix A2.2.
_base_ = ['../_base_/models/upernet-small.py', '../_base_/backbones/nano.py', '../_base_/datasets/digits-semantic.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/segmentation.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size_px), backbone=dict(_base_.backbone, window_size=8, drop_path_rate=0.0),
    # Four pixels of five are photograph.
    decode_head=dict(
        in_channels=_base_.channels, num_classes=_base_.num_classes, loss_decode=dict(class_weight=[0.2] + [1.0] * 10)),
    auxiliary_head=dict(in_channels=_base_.channels_of_stage_2, num_classes=_base_.num_classes))
train_cfg = dict(max_iters=700, val_interval=700)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=700, T_max=600)]
default_hooks = dict(checkpoint=dict(interval=700), logger=dict(interval=10))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
