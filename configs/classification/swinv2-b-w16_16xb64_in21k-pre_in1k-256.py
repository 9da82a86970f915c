# Trains: Swin-B V2, window 16, on ImageNet-1K at 256 px, from ImageNet-22K weights.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-b-w16_16xb64_in21k-pre_in1k-256.py --amp
# Hardware: 16 GPUs, 64 images each; time not measured.
# Score: not measured here; published 86.17 top-1, 97.88 top-5 (MMClassification 0.x model page)
# Source: paper appendix A1 and official config.
_base_ = ['../_base_/models/classifier-mixup.py', '../_base_/backbones/base.py', '../_base_/datasets/imagenet-256.py',
          '../_base_/schedules/imagenet-30e.py', '../_base_/runtime/classification.py']
model = dict(backbone=dict(_base_.backbone, window_size=16, drop_path_rate=0.2), head=dict(in_channels=_base_.channels_of_stage_3))
load_from = 'swinv2-base-w12-192_in22k'  # its 1,000 classes are found in its 21,841 (docs/weights.md)
