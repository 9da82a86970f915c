# Trains: RetinaNet with PVTv2-b1 on COCO 2017, boxes only (12 epochs at one scale).
# Command: tools/dist_train.sh projects/pvtv2/configs/detection/retinanet_pvtv2-b1_fpn_1x_coco.py 8 --amp
# Hardware: 8 GPUs, 2 images each; time not measured.
# Score: published 41.2 box AP (authors' page); ours not measured.
# Source: detection/configs/retinanet_pvt_v2_b1_fpn_1x_coco.py of github.com/whai362/PVT. Not as there: norms and biases do not decay.
_base_ = 'retinanet_pvtv2-b2_fpn_1x_coco.py'
model = dict(backbone=dict(arch='b1', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b1.pth')))
