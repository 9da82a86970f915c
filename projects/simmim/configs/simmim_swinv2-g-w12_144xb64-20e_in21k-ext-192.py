# Trains: Swin-G V2, window 12, by SimMIM at 192 px, without labels (stage 1 of 2; stage 2: configs/classification/swinv2-g-*).
# Command: GPUS=144 tools/slurm_train.sh PARTITION JOB projects/simmim/configs/simmim_swinv2-g-w12_144xb64-20e_in21k-ext-192.py --amp
# Hardware: 144 GPUs, 64 images each; time and memory not measured.
# Score: not measured, none published.
# Source: paper appendix (SwinV2-G); masks, targets and drop path of the official SimMIM config of B. The extension to 70 million images is not public.
_base_ = ['_base_/simmim.py', '../../../configs/_base_/backbones/giant.py', '_base_/imagenet22k-192.py',
          '../../../configs/_base_/schedules/adamw-iterations.py', '_base_/runtime.py']
model = dict(
    backbone=dict(_base_.backbone, window_size=(12, 12, 12, 6), drop_path_rate=0.1, with_cp=True),
    neck=dict(in_channels=_base_.channels_of_stage_3))
train_dataloader = dict(sampler=dict(type='SeededInfiniteSampler'))
auto_scale_lr = dict(base_batch_size=9216)
optim_wrapper = dict(clip_grad=dict(max_norm=100.0), optimizer=dict(lr=1.4e-3, weight_decay=0.1))
# 20 epochs of 70 million images, which the warm-up of 30,000 steps is meant for.
iterations = 20 * 70_000_000 // 9216
train_cfg = dict(max_iters=iterations)
val_cfg = None
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=1e-3, end=30000),
    dict(_base_.param_scheduler[1], begin=30000, end=iterations, T_max=iterations - 30000)]
default_hooks = dict(checkpoint=dict(interval=5000))
