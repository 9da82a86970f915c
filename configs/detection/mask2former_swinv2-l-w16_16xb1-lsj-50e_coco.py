# Trains: Mask2Former with SwinV2-L, window 16, on COCO 2017 instances (50 epochs, 1024 px).
# Command: GPUS=16 tools/slurm_train.sh PARTITION JOB configs/detection/mask2former_swinv2-l-w16_16xb1-lsj-50e_coco.py --amp
# Hardware: 16 GPUs, 1 image each; time not measured.
# Score: nothing published for SwinV2; ours not measured.
# Source: Mask2Former (arXiv 2112.01527) with its settings for Swin-L, but half its 100 epochs; window and weights own choice.
_base_ = ['../_base_/models/mask2former-instance.py', '../_base_/backbones/large.py', '../_base_/datasets/coco-instance-lsj.py',
          '../_base_/schedules/mask2former-50e.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(
        _base_.backbone, window_size=16, drop_path_rate=0.3, with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-large-w16-256_in22k-ft-in1k')),
    panoptic_head=dict(num_queries=200, in_channels=_base_.channels))
train_dataloader = dict(batch_size=1)
