# Trains: Swin-S V2, window 8, from scratch on ImageNet-1K at 256 px, with norms before each branch, as in V1: an ablation.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB configs/classification/swinv2-s-w8_16xb64_pre-norm_in1k-256.py --amp
# Hardware: 16 GPUs, 64 images each; time not measured.
# Score: not measured here; published 83.2 top-1 (paper table 7), where the recipe of the comparison is not printed
# Source: paper table 7; the rest as swinv2-s-w8_16xb64_in1k-256.py.
_base_ = 'swinv2-s-w8_16xb64_in1k-256.py'
model = dict(backbone=dict(norm_order='pre'))
