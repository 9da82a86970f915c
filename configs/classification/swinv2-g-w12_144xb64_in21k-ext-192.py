# Trains: Swin-G V2, window 12, supervised on ImageNet-22K at 192 px, after SimMIM (stage 2 of 2).
# Command: GPUS=144 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-g-w12_144xb64_in21k-ext-192.py --amp --cfg-options "model.backbone.init_cfg=dict(type='Pretrained',checkpoint='SIMMIM_FILE')"
# Hardware: 144 GPUs, 64 images each; time and memory not measured.
# Score: not measured, none published.
# Source: paper appendix (SwinV2-G); cosine and its end from the official configs. The extension to 70 million images is not public.
_base_ = ['../_base_/models/classifier.py', '../_base_/backbones/giant.py', '../_base_/datasets/imagenet22k-192.py',
          '../_base_/schedules/adamw-iterations.py', '../_base_/runtime/classification.py']
model = dict(
    data_preprocessor=dict(num_classes=_base_.num_classes),
    backbone=dict(_base_.backbone, window_size=(12, 12, 12, 6), drop_path_rate=0.3, with_cp=True),
    head=dict(in_channels=_base_.channels_of_stage_3, num_classes=_base_.num_classes))
train_dataloader = dict(sampler=dict(type='SeededInfiniteSampler'))
auto_scale_lr = dict(base_batch_size=9216)
optim_wrapper = dict(
    clip_grad=dict(max_norm=100.0), optimizer=dict(lr=1.4e-3, weight_decay=0.1), paramwise_cfg=dict(layer_decay_rate=0.87))
# 30 epochs of 70 million images, which the warm-up of 20,000 steps is meant for.
iterations = 30 * 70_000_000 // 9216
train_cfg = dict(max_iters=iterations)
val_cfg = None
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=1e-3, end=20000),
    dict(_base_.param_scheduler[1], begin=20000, end=iterations, T_max=iterations - 20000)]
default_hooks = dict(checkpoint=dict(interval=5000))
