# Trains: Cascade Mask R-CNN with PVTv2-b2 on COCO 2017 (36 epochs at many scales, every second image cropped).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/cascade-mask-rcnn_pvtv2-b2_fpn_ms-3x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 51.1 / 44.4 box / mask AP (authors' page); ours not measured.
# Source: detection/configs/cascade_mask_rcnn_pvt_v2_b2_fpn_3x_mstrain_fp16.py of github.com/whai362/PVT.
_base_ = ['../../../../configs/_base_/models/cascade-mask-rcnn-4conv.py', '../../../../configs/_base_/datasets/coco-instance-ms.py',
          '../../../../configs/_base_/schedules/coco-3x.py', '../../../../configs/_base_/runtime/detection.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.1, init_cfg=dict(type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth')),
    neck=dict(in_channels=_base_.channels))
param_scheduler = [dict(_base_.param_scheduler[0], end=500), _base_.param_scheduler[1]]
