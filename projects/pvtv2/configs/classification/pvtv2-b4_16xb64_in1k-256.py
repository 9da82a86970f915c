# Trains: PVTv2-b4 from scratch on ImageNet-1K at 256 px, by the recipe of SwinV2.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB projects/pvtv2/configs/classification/pvtv2-b4_16xb64_in1k-256.py --amp
# Hardware: 16 GPUs, 64 images each; time not measured.
# Score: not measured; for published ones see the recipes at 224 px.
# Source: the recipe of configs/classification/swinv2-t-w8_16xb64_in1k-256.py.
_base_ = 'pvtv2-b2_16xb64_in1k-256.py'
model = dict(backbone=dict(arch='b4'))
