# Trains: Mask R-CNN with PVTv2-b0 on COCO 2017 (12 epochs at one scale).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/mask-rcnn_pvtv2-b0_fpn_1x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 38.2 / 36.2 box / mask AP (authors' page); ours not measured.
# Source: detection/configs/mask_rcnn_pvt_v2_b0_fpn_1x_coco.py of github.com/whai362/PVT. Not as there: norms and biases do not decay.
_base_ = 'mask-rcnn_pvtv2-b2_fpn_1x_coco.py'
model = dict(backbone=dict(arch='b0', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b0.pth')), neck=dict(in_channels=[32, 64, 160, 256]))
