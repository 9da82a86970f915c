# Trains: SwinV2-g of the SimMIM family (1.06 billion parameters), window 14, on ImageNet-1K at 224 px, from SimMIM weights.
# Command: GPUS=64 tools/slurm_train.sh PARTITION JOB projects/simmim/configs/swinv2-g1b-w14_64xb32_simmim-ft_in1k-224.py --amp
# Hardware: 64 GPUs, 32 images each; time not measured.
# Score: published 86.46 top-1 (official model hub; 500,000 steps of SimMIM on ImageNet-1K); ours not measured.
# Source: the official fine-tuning config of SwinV2-B, for another size: the hub's of this one are not public; extra norms as in the paper's H and G.
_base_ = 'swinv2-b-w14_16xb128_simmim-ft_in1k-224.py'
model = dict(
    backbone=dict(arch='simmim_giant', with_cp=True, init_cfg=dict(checkpoint='swinv2-simmim-giant-w12-192_simmim-in1k-500k')),
    head=dict(in_channels=3584))
train_dataloader = dict(batch_size=32)
