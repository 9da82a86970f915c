# Trains: Swin-L V2, window 14, on ImageNet-1K at 224 px, from SimMIM weights.
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB projects/simmim/configs/swinv2-l-w14_16xb128_simmim-ft_in1k-224.py --amp
# Hardware: 16 GPUs, 128 images each; time not measured.
# Score: published 85.91 top-1 (official model hub; 500,000 steps of SimMIM on ImageNet-1K); ours not measured.
# Source: the official fine-tuning config of SwinV2-B, for another size: the hub's of this one are not public.
_base_ = 'swinv2-b-w14_16xb128_simmim-ft_in1k-224.py'
model = dict(
    backbone=dict(arch='large', init_cfg=dict(checkpoint='swinv2-large-w12-192_simmim-in1k-500k')),
    head=dict(in_channels=1536))
