# Trains: a classifier with a narrow SwinV2 on the digits of `make demo`, which runs it.
# Command: make demo
# Hardware: two CPU cores, 2 minutes.
# Score: top-1 82.3 % (docs/results.md)
# Source: own recipe for a demonstration.
_base_ = ['../_base_/models/classifier.py', '../_base_/backbones/nano.py', '../_base_/datasets/digits-folder.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/classification.py']
model = dict(
    data_preprocessor=dict(num_classes=_base_.num_classes), backbone=dict(_base_.backbone, window_size=8),
    head=dict(in_channels=_base_.channels_of_stage_3, num_classes=_base_.num_classes))
auto_scale_lr = dict(base_batch_size=64)
train_cfg = dict(max_iters=400, val_interval=400)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=400, T_max=300)]
default_hooks = dict(
    checkpoint=dict(interval=400), logger=dict(interval=10),
    # Drawn at four times their 64 px: the words would not fit.
    visualization=dict(type='VisualizationHook', rescale_factor=4.0))
