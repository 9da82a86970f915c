# Trains: ATSS with SwinV2-T, window 16, on COCO 2017, boxes only (12 epochs at one scale).
# Command: tools/dist_train.sh configs/detection/atss_swinv2-t-w16_fpn_1x_coco.py 4 --amp
# Hardware: 4 GPUs, 4 images each; time not measured.
# Score: nothing published for it; ours not measured.
# Source: UniverseNet, configs/swinv2/atss_swinv2-t-p4-w16_fpn_4x4_1x_coco.py; warm-up as in MMDetection.
_base_ = ['../_base_/models/atss.py', '../_base_/backbones/tiny.py', '../_base_/datasets/coco-detection.py',
          '../_base_/schedules/coco-1x.py', '../_base_/runtime/detection.py']
# Stage 0 is not used, and has no norm then.
model = dict(
    backbone=dict(
        _base_.backbone, window_size=16, drop_path_rate=0.2, out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-tiny-w16-256_in1k')),
    neck=dict(in_channels=_base_.channels[1:]))
train_dataloader = dict(batch_size=4)
