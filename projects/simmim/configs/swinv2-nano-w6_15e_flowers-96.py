# Trains: a classifier with a narrow SwinV2 on five kinds of flowers at 96 px; from scratch, or from SimMIM weights.
# Command: python tools/train.py projects/simmim/configs/swinv2-nano-w6_15e_flowers-96.py [--cfg-options "model.backbone.init_cfg=dict(type='Pretrained',checkpoint='SIMMIM_FILE')" "+optim_wrapper.paramwise_cfg=dict(layer_decay_rate=0.9)"]
# Hardware: one CPU core, 2 minutes.
# Score: top-1 55.3 % from scratch, 63.6 % from SimMIM weights without layer decay, means of 3 seeds (README.md)
# Source: own recipe for small data.
_base_ = ['../../../configs/_base_/models/classifier.py', '../../../configs/_base_/backbones/nano.py', '_base_/flowers-96.py',
          '../../../configs/_base_/schedules/adamw-epochs.py', '../../../configs/_base_/runtime/classification.py']
model = dict(
    data_preprocessor=dict(num_classes=_base_.num_classes),
    backbone=dict(_base_.backbone, window_size=(6, 6, 6, 3), drop_path_rate=0.05),
    head=dict(in_channels=_base_.channels_of_stage_3, num_classes=_base_.num_classes))
auto_scale_lr = dict(base_batch_size=16)
train_cfg = dict(max_epochs=15)
param_scheduler = [dict(_base_.param_scheduler[0], end=2), dict(_base_.param_scheduler[1], begin=2, end=15, T_max=13)]
default_hooks = dict(checkpoint=dict(interval=15))
