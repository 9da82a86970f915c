# Trains: PVTv2-b2 from scratch on ImageNet-1K at 256 px, by the recipe of SwinV2.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB projects/pvtv2/configs/classification/pvtv2-b2_16xb64_in1k-256.py --amp
# Hardware: 16 GPUs, 64 images each; time not measured.
# Score: not measured; for published ones see the recipes at 224 px.
# Source: the recipe of configs/classification/swinv2-t-w8_16xb64_in1k-256.py.
_base_ = ['../../../../configs/_base_/models/classifier-mixup.py', '../../../../configs/_base_/datasets/imagenet-256.py', '../../../../configs/_base_/schedules/imagenet-300e.py',
          '../../../../configs/_base_/runtime/classification.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(backbone=dict(_base_.backbone, drop_path_rate=0.1), head=dict(in_channels=_base_.channels[3]))
