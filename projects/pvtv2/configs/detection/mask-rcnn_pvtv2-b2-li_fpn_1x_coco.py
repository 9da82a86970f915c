# Trains: Mask R-CNN with PVTv2-b2-li on COCO 2017 (12 epochs at one scale).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/mask-rcnn_pvtv2-b2-li_fpn_1x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 44.1 / 40.5 box / mask AP (authors' page); ours not measured.
# Source: detection/configs/mask_rcnn_pvt_v2_b2_li_fpn_1x_coco.py of github.com/whai362/PVT. Not as there: norms and biases do not decay.
_base_ = 'mask-rcnn_pvtv2-b2_fpn_1x_coco.py'
model = dict(backbone=dict(arch='b2-li', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2_li.pth')))
