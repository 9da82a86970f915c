# Trains: Cascade Mask R-CNN with SwinV2-B, window 32, on COCO 2017 (36 epochs at many scales, every second image cropped).
# Command: tools/dist_train.sh configs/detection/cascade-mask-rcnn_swinv2-b-w32_fpn_ms-3x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: nothing published for it; ours not measured.
# Source: paper appendix A2.1 (ablation), weights of window 8 as in table 1; box heads, drop path and steps as for Swin, warm-up as in MMDetection.
_base_ = ['../_base_/models/cascade-mask-rcnn-4conv.py', '../_base_/backbones/base.py', '../_base_/datasets/coco-instance-ms.py',
          '../_base_/schedules/coco-3x.py', '../_base_/runtime/detection.py']
model = dict(
    backbone=dict(
        _base_.backbone, window_size=32, drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='swinv2-base-w8-256_in1k')),
    neck=dict(in_channels=_base_.channels))
