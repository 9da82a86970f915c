# Trains: Swin-H V2, window 12, by SimMIM on ImageNet-1K at 192 px, without labels.
# Command: GPUS=64 tools/slurm_train.sh PARTITION JOB projects/simmim/configs/simmim_swinv2-h-w12_64xb32-800e_in1k-192.py --amp
# Hardware: 64 GPUs, 32 images each; time not measured.
# Score: not measured; the weights are a start for fine-tuning.
# Source: the official SimMIM recipe of SwinV2-B, for another size; the released weights of this one (docs/weights.md) were trained for 125,000 to 500,000 steps.
_base_ = ['_base_/simmim.py', '../../../configs/_base_/backbones/huge.py', '_base_/imagenet-192.py',
          '_base_/simmim-800e.py', '_base_/runtime.py']
# The last stage is 6 tokens wide: its bias is trained at that window.
model = dict(
    backbone=dict(_base_.backbone, window_size=(12, 12, 12, 6), drop_path_rate=0.1, with_cp=True),
    neck=dict(in_channels=_base_.channels_of_stage_3))
train_dataloader = dict(batch_size=32)
