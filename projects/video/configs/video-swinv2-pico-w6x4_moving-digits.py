# Trains: a very narrow Video-SwinV2, windows 6x6x4, to tell eight directions of motion in generated videos.
# Command: python tools/train.py projects/video/configs/video-swinv2-pico-w6x4_moving-digits.py
# Hardware: one CPU core, about 100 seconds beside two other jobs.
# Score: top-1 100 % on 160 videos (projects/video/README.md)
# Source: own recipe for a demonstration.
_base_ = ['_base_/recognizer.py', '_base_/moving-digits.py', '../../../configs/_base_/schedules/adamw-epochs.py', '_base_/runtime.py']
model = dict(
    backbone=dict(
        arch=dict(embed_dim=32, depths=(2, 2), num_heads=(1, 2)), out_indices=(1,),
        window_size=6, temporal_window_size=4, drop_path_rate=0.0),
    num_classes=_base_.num_classes)
auto_scale_lr = dict(base_batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=12, val_interval=2)
param_scheduler = [dict(_base_.param_scheduler[0], end=1), dict(_base_.param_scheduler[1], begin=1, end=12, T_max=11)]
