# Trains: Mask R-CNN with PVTv2-b2 on COCO 2017 (12 epochs at one scale).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/mask-rcnn_pvtv2-b2_fpn_1x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 45.3 / 41.2 box / mask AP (authors' page); ours not measured.
# Source: detection/configs/mask_rcnn_pvt_v2_b2_fpn_1x_coco.py of github.com/whai362/PVT. Not as there: norms and biases do not decay.
_base_ = ['../../../../configs/_base_/models/mask-rcnn.py', '../../../../configs/_base_/datasets/coco-instance.py', '../_base_/schedules/coco-1x.py',
          '../../../../configs/_base_/runtime/detection.py', '../_base_/backbone.py']
custom_imports = dict(imports=['swinv2_mm.models', 'projects.pvtv2.pvtv2'])
model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.1, init_cfg=dict(type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth')),
    neck=dict(in_channels=_base_.channels))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
