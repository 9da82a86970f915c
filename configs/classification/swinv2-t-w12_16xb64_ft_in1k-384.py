# Trains: Swin-T V2, window 12, on ImageNet-1K at 384 px, from its weights of window 8 at 256 px.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-t-w12_16xb64_ft_in1k-384.py --amp
# Hardware: 16 GPUs, 64 images each; time and memory not measured (backbone.with_cp=True saves memory).
# Score: not measured here; published 83.2 top-1, and 82.4 before fine-tuning (paper table 1)
# Source: paper table 1 and appendix A1; warm-up, clipping and drop path as in the official fine-tuning and T configs.
_base_ = ['../_base_/models/classifier-mixup.py', '../_base_/backbones/tiny.py', '../_base_/datasets/imagenet-384.py',
          '../_base_/schedules/imagenet-30e.py', '../_base_/runtime/classification.py']
model = dict(backbone=dict(_base_.backbone, window_size=12, drop_path_rate=0.2), head=dict(in_channels=_base_.channels_of_stage_3))
load_from = 'swinv2-tiny-w8-256_in1k'
