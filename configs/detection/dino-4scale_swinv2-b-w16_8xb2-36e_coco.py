# Trains: DINO with four scales and SwinV2-B, window 16, on COCO 2017 (36 epochs).
# Command: tools/dist_train.sh configs/detection/dino-4scale_swinv2-b-w16_8xb2-36e_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: nothing published for SwinV2; ours not measured.
# Source: DINO (arXiv 2203.03605) as in MMDetection; backbone, its weights and drop path own choice.
_base_ = ['../_base_/models/dino-4scale.py', '../_base_/backbones/base.py', '../_base_/datasets/coco-detection-detr.py',
          '../_base_/schedules/dino-36e.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(
        _base_.backbone, window_size=16, drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-base-w16-256_in22k-ft-in1k')),
    neck=dict(in_channels=_base_.channels[1:]))
