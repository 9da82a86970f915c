# Trains: Swin-T V2, window 8, from scratch on ImageNet-1K at 256 px.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-t-w8_16xb64_in1k-256.py --amp
# Hardware: 16 GPUs, 64 images each; time not measured.
# Score: not measured here; published 81.76 top-1, 95.87 top-5 (MMClassification 0.x model page)
# Source: paper appendix A1 and official config; augmentation as in the official code.
_base_ = ['../_base_/models/classifier-mixup.py', '../_base_/backbones/tiny.py', '../_base_/datasets/imagenet-256.py',
          '../_base_/schedules/imagenet-300e.py', '../_base_/runtime/classification.py']
model = dict(backbone=dict(_base_.backbone, window_size=8, drop_path_rate=0.2), head=dict(in_channels=_base_.channels_of_stage_3))
