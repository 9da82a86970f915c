# Trains: Swin-B V2, window 14, on ImageNet-1K at 224 px, from SimMIM weights (official files or those of this project).
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB projects/simmim/configs/swinv2-b-w14_16xb128_simmim-ft_in1k-224.py --amp
# Hardware: 16 GPUs, 128 images each; time not measured.
# Score: published 85.04 top-1 (official model hub; 500,000 steps of SimMIM on ImageNet-1K); ours not measured.
# Source: official fine-tuning config of SwinV2-B (rate 1.25e-3 per 512 images, layer decay 0.75, all layers down to 1e-6).
_base_ = ['../../../configs/_base_/models/classifier-mixup.py', '../../../configs/_base_/backbones/base.py', '../../../configs/_base_/datasets/imagenet-224.py',
          '../../../configs/_base_/schedules/imagenet-300e.py', '../../../configs/_base_/runtime/classification.py']
# The last stage is 7 tokens wide.
model = dict(
    backbone=dict(
        _base_.backbone, window_size=(14, 14, 14, 7), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-base-w12-192_simmim-in1k-500k')),
    head=dict(in_channels=_base_.channels_of_stage_3))
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=2048)
optim_wrapper = dict(optimizer=dict(lr=5e-3), paramwise_cfg=dict(layer_decay_rate=0.75))
train_cfg = dict(max_epochs=100)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=2e-4),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=20, end=100, T_max=80, eta_min=1e-6, convert_to_iter_based=True)]
