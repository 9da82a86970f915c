# Trains: Swin-B V2, window 16, from scratch on ImageNet-1K at 256 px.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-b-w16_16xb64_in1k-256.py --amp
# Hardware: 16 GPUs, 64 images each; time not measured.
# Score: not measured here; published 84.6 top-1, 97.05 top-5 (MMClassification 0.x model page)
# Source: paper appendix A1 and official config; augmentation as in the official code.
_base_ = ['../_base_/models/classifier-mixup.py', '../_base_/backbones/base.py', '../_base_/datasets/imagenet-256.py',
          '../_base_/schedules/imagenet-300e.py', '../_base_/runtime/classification.py']
# The last stage is 8 tokens wide: its bias is trained at that window.
model = dict(backbone=dict(_base_.backbone, window_size=(16, 16, 16, 8), drop_path_rate=0.5), head=dict(in_channels=_base_.channels_of_stage_3))
