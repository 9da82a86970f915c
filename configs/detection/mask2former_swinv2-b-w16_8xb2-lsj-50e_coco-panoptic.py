# Trains: Mask2Former with SwinV2-B, window 16, on COCO 2017 panoptic (50 epochs, 1024 px).
# Command: tools/dist_train.sh configs/detection/mask2former_swinv2-b-w16_8xb2-lsj-50e_coco-panoptic.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: nothing published for SwinV2; ours not measured.
# Source: Mask2Former (arXiv 2112.01527) with its settings for Swin; window and weights own choice.
_base_ = ['../_base_/models/mask2former-panoptic.py', '../_base_/backbones/base.py', '../_base_/datasets/coco-panoptic-lsj.py',
          '../_base_/schedules/mask2former-50e.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(
        _base_.backbone, window_size=16, drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-base-w16-256_in22k-ft-in1k')),
    panoptic_head=dict(in_channels=_base_.channels))
