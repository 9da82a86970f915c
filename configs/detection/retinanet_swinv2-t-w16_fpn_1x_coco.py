# Trains: RetinaNet with SwinV2-T, window 16, on COCO 2017, boxes only (12 epochs at one scale).
# Command: tools/dist_train.sh configs/detection/retinanet_swinv2-t-w16_fpn_1x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: nothing published for it; ours not measured.
# Source: MMDetection's RetinaNet, with AdamW as for Mask R-CNN.
_base_ = ['../_base_/models/retinanet.py', '../_base_/backbones/tiny.py', '../_base_/datasets/coco-detection.py',
          '../_base_/schedules/coco-1x.py', '../_base_/runtime/detection.py']
# Stage 0 is not used, and has no norm then.
model = dict(
    backbone=dict(
        _base_.backbone, window_size=16, drop_path_rate=0.2, out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-tiny-w16-256_in1k')),
    neck=dict(start_level=0, in_channels=_base_.channels[1:]))
