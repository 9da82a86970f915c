# Trains: Swin-H V2, window 14, on ImageNet-1K at 224 px, from SimMIM weights.
# Command: GPUS=64 tools/slurm_train.sh PARTITION JOB projects/simmim/configs/swinv2-h-w14_64xb32_simmim-ft_in1k-224.py --amp
# Hardware: 64 GPUs, 32 images each; time not measured.
# Score: published 86.34 top-1 (official model hub; 500,000 steps of SimMIM on ImageNet-1K); ours not measured.
# Source: the official fine-tuning config of SwinV2-B, for another size: the hub's of this one are not public.
_base_ = 'swinv2-b-w14_16xb128_simmim-ft_in1k-224.py'
model = dict(
    backbone=dict(arch='huge', with_cp=True, init_cfg=dict(checkpoint='swinv2-huge-w12-192_simmim-in1k-500k')),
    head=dict(in_channels=2816))
train_dataloader = dict(batch_size=32)
