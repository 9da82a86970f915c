# Trains: Video-SwinV2-G, windows 20x20x8, on Kinetics-400, 8 frames at 320 px, after stage 1 (stage 2 of 2).
# Command: GPUS=64 tools/slurm_train.sh PARTITION JOB projects/video/configs/video-swinv2-g-w20x8_64xb1-5e_k400-320.py --amp
# Hardware: 64 GPUs with one clip each; time and memory not measured.
# Score: published 83.2 top-1 with one view (paper, comparison on Kinetics-400); ours not measured.
# Source: paper appendix (SwinV2-G, Kinetics-400); both ends of the rate and no clipping as in Video Swin's code.
_base_ = ['_base_/recognizer.py', '_base_/kinetics400-8frames-320.py', '../../../configs/_base_/schedules/adamw-epochs.py', '_base_/runtime.py']
model = dict(
    backbone=dict(arch='giant', window_size=20, temporal_window_size=8, drop_path_rate=0.4, with_cp=True),
    num_classes=400, views_per_pass=1)
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(clip_grad=None, optimizer=dict(lr=5e-5, weight_decay=0.1))
train_cfg = dict(max_epochs=5, val_interval=1)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=0.1, end=1),
    dict(_base_.param_scheduler[1], begin=1, end=5, T_max=4, eta_min_ratio=0.0)]
default_hooks = dict(checkpoint=dict(interval=1))
load_from = 'work_dirs/video-swinv2-g-w16x8_80xb1-20e_k400-256/epoch_20.pth'
